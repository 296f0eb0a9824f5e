"""The table of architectures: a line here earns one the tests of ``test_archs.py`` and a row of ``subquad list``."""

from .arch import Arch, unknown
from .based import based
from .config import LMConfig
from .deltanet import deltanet
from .gated_deltanet import gated_deltanet
from .gated_deltanet_hybrid import gated_deltanet_hybrid
from .gla import gla
from .griffin import griffin
from .gsa import gsa
from .hgrn2 import hgrn2
from .linear_attention import linear_attention
from .mamba2 import mamba2
from .min_gru import min_gru
from .minimax import minimax
from .retnet import retnet
from .rwkv6 import rwkv6
from .transformer import transformer

ARCHS: dict[str, Arch] = {
    arch.name: arch
    for arch in (
        transformer,
        linear_attention,
        retnet,
        minimax,
        based,
        mamba2,
        gla,
        hgrn2,
        gsa,
        rwkv6,
        deltanet,
        gated_deltanet,
        gated_deltanet_hybrid,
        griffin,
        min_gru,
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
