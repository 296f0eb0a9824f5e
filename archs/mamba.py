"""Mamba: blocks of the S6 mixer alone, no channel mixer (Gu & Dao 2023, arXiv 2312.00752).

Sizes are the paper's on the Pile, as released in github.com/state-spaces/mamba: tied embeddings, and the 50,277 tokens
of GPT-NeoX padded to a multiple of 8.
"""

from ..layers import MambaConfig
from .arch import BYTES, Arch
from .config import LMConfig


def _pile(dim: int, depth: int) -> LMConfig:
    return LMConfig(vocab=50_280, dim=dim, depth=depth, pattern=(MambaConfig(),))


mamba = Arch(
    name="mamba",
    paper="Gu & Dao (2023), Mamba, arXiv 2312.00752",
    sizes={
        "tiny": LMConfig(BYTES, dim=128, depth=8, pattern=(MambaConfig(),)),
        "130m": _pile(768, 24),
        "370m": _pile(1024, 48),
        "790m": _pile(1536, 48),
        "1.4b": _pile(2048, 48),
        "2.8b": _pile(2560, 64),
    },
    # 2.8b: the tensors of the checkpoint state-spaces/mamba-2.8b, equal to the last digit. The others are the paper's
    # figures, rounded; its "1.4B" is too coarse to hold 1,372,178,432 to 1%.
    published={"130m": 130_000_000, "370m": 370_000_000, "790m": 790_000_000, "2.8b": 2_768_345_600},
)
