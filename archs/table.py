"""The table of architectures: a line here earns one the tests of ``test_archs.py`` and a row of ``subquad list``."""

from .arch import Arch, unknown
from .config import LMConfig
from .deltanet import deltanet
from .gated_deltanet import gated_deltanet
from .gated_deltanet_hybrid import gated_deltanet_hybrid
from .gla import gla
from .griffin import griffin
from .log_linear_mamba2 import log_linear_mamba2
from .mamba2 import mamba2
from .mamba3 import mamba3
from .mesa_net import mesa_net
from .min_gru import min_gru
from .transformer import transformer
from .ttt_linear import ttt_linear

ARCHS: dict[str, Arch] = {
    arch.name: arch
    for arch in (
        transformer,
        mamba2,
        log_linear_mamba2,
        mamba3,
        gla,
        deltanet,
        gated_deltanet,
        gated_deltanet_hybrid,
        mesa_net,
        ttt_linear,
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
