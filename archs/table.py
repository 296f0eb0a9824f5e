"""The table of architectures: a line here earns one the tests of ``test_archs.py`` and a row of ``subquad list``."""

from .arch import Arch, unknown
from .based import based
from .bigbird import bigbird
from .comba import comba
from .config import LMConfig
from .delta_product import delta_product
from .deltanet import deltanet
from .falcon_h1 import falcon_h1
from .gated_deltanet import gated_deltanet
from .gated_deltanet2 import gated_deltanet2
from .gated_deltanet_hybrid import gated_deltanet_hybrid
from .gla import gla
from .griffin import griffin
from .gru import gru
from .gsa import gsa
from .h3 import h3
from .hgrn import hgrn
from .hgrn2 import hgrn2
from .hyena import hyena
from .jamba import jamba
from .kimi_linear import kimi_linear
from .linear_attention import linear_attention
from .log_linear_mamba2 import log_linear_mamba2
from .longformer import longformer
from .longhorn import longhorn
from .lstm import lstm
from .mamba import mamba
from .mamba2 import mamba2
from .mamba3 import mamba3
from .matmul_free import matmul_free
from .mesa_net import mesa_net
from .min_gru import min_gru
from .min_lstm import min_lstm
from .minimax import minimax
from .moba import moba
from .nsa import nsa
from .qrnn import qrnn
from .reformer import reformer
from .retnet import retnet
from .reversible import gated_deltanet_reversible, mamba2_reversible
from .rwkv4 import rwkv4
from .rwkv6 import rwkv6
from .rwkv7 import rwkv7
from .samba import samba
from .transformer import transformer
from .ttt_linear import ttt_linear
from .window_hybrid import window_hybrid
from .xlstm import xlstm_1_0, xlstm_7_1, xlstm_large
from .zamba import zamba

ARCHS: dict[str, Arch] = {
    arch.name: arch
    for arch in (
        transformer,
        based,
        bigbird,
        comba,
        delta_product,
        deltanet,
        falcon_h1,
        gated_deltanet,
        gated_deltanet2,
        gated_deltanet_hybrid,
        gated_deltanet_reversible,
        gla,
        griffin,
        gru,
        gsa,
        h3,
        hgrn,
        hgrn2,
        hyena,
        jamba,
        kimi_linear,
        linear_attention,
        log_linear_mamba2,
        longformer,
        longhorn,
        lstm,
        mamba,
        mamba2,
        mamba2_reversible,
        mamba3,
        matmul_free,
        mesa_net,
        min_gru,
        min_lstm,
        minimax,
        moba,
        nsa,
        qrnn,
        reformer,
        retnet,
        rwkv4,
        rwkv6,
        rwkv7,
        samba,
        ttt_linear,
        window_hybrid,
        xlstm_1_0,
        xlstm_7_1,
        xlstm_large,
        zamba,
    )
}


def preset(name: str, size: str = "tiny") -> LMConfig:
    """The settings of a published architecture at one of its sizes.

    Args:
      name: a key of ``ARCHS``, such as ``"mamba2"``.
      size: a key of its ``sizes``, such as ``"130m"``.

    Raises:
      ValueError: there is no such architecture or size; it names the nearest one.
    """
    if name not in ARCHS:
        raise unknown("architecture", name, ARCHS)
    return ARCHS[name](size)
