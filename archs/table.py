"""The table of architectures: a line here earns one the tests of ``test_archs.py`` and a row of ``subquad list``."""

from .arch import Arch, unknown
from .comba import comba
from .config import LMConfig
from .delta_product import delta_product
from .deltanet import deltanet
from .gated_deltanet import gated_deltanet
from .gated_deltanet2 import gated_deltanet2
from .gated_deltanet_hybrid import gated_deltanet_hybrid
from .gla import gla
from .griffin import griffin
from .kimi_linear import kimi_linear
from .mamba2 import mamba2
from .min_gru import min_gru
from .rwkv7 import rwkv7
from .transformer import transformer

ARCHS: dict[str, Arch] = {
    arch.name: arch
    for arch in (
        transformer,
        mamba2,
        gla,
        deltanet,
        gated_deltanet,
        gated_deltanet_hybrid,
        griffin,
        min_gru,
        kimi_linear,
        gated_deltanet2,
        delta_product,
        comba,
        rwkv7,
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
