"""Mamba-2: blocks of the SSD mixer alone, no channel mixer (Dao & Gu 2024, arXiv 2405.21060).

Sizes are the paper's on the Pile, as released in github.com/state-spaces/mamba: tied embeddings, and the 50,277 tokens
of GPT-NeoX padded to a multiple of 16.
"""

from ..layers import Mamba2Config
from .arch import BYTES, Arch
from .config import LMConfig


def _pile(dim: int, depth: int) -> LMConfig:
    return LMConfig(vocab=50_288, dim=dim, depth=depth, pattern=(Mamba2Config(),), norm_eps=1e-5)


mamba2 = Arch(
    name="mamba2",
    paper="Dao & Gu (2024), Transformers are SSMs, arXiv 2405.21060",
    sizes={
        "tiny": LMConfig(BYTES, dim=128, depth=8, pattern=(Mamba2Config(head_dim=32, state_dim=64),)),
        "130m": _pile(768, 24),
        "370m": _pile(1024, 48),
        "780m": _pile(1536, 48),
        "1.3b": _pile(2048, 48),
        "2.7b": _pile(2560, 64),
    },
    # 130m and 2.7b: the tensors of the checkpoints state-spaces/mamba2-130m and -2.7b, equal to the last digit.
    # 370m and 780m: the paper's figures, which are rounded. 1.3b has 1,343,757,312 here; the paper's "1.3B" is too
    # coarse to hold it to 1%, and its tensor count was not found.
    published={"130m": 128_989_632, "370m": 370_000_000, "780m": 780_000_000, "2.7b": 2_702_599_680},
)
