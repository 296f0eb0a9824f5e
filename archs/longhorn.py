"""Longhorn: blocks of the Longhorn mixer alone, no channel mixer (Liu et al. 2024, arXiv 2407.14207).

The paper takes Mamba's widths and depths; its "120M", "350M" and "1.3B" are too coarse to hold a count to 1%, and no
checkpoints are public, so that nothing is held. The vocabulary is the official code's default.
"""

from ..layers import LonghornConfig
from .arch import BYTES, Arch
from .config import LMConfig


def _sized(dim: int, depth: int) -> LMConfig:
    return LMConfig(vocab=50_280, dim=dim, depth=depth, pattern=(LonghornConfig(),))


longhorn = Arch(
    name="longhorn",
    paper="Liu, Wang, Wu, Feng, Stone & Liu (2024), Longhorn, arXiv 2407.14207",
    sizes={
        "tiny": LMConfig(BYTES, dim=128, depth=8, pattern=(LonghornConfig(),)),
        "120m": _sized(768, 24),
        "350m": _sized(1024, 48),
        "1.3b": _sized(2048, 48),
    },
)
