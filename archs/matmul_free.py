"""MatMul-free LM: MLGRU and SwiGLU with ternary projections (Zhu et al. 2024, arXiv 2406.02528).

Sizes are those of the authors' code and released models, github.com/ridgerchu/matmulfreellm: the head is a ternary
projection too, and not tied to the embedding; the hidden width is 8/3 of the model width, rounded up to a multiple of
256; a vocabulary of 32,000.
"""

from ..layers import MLGRUConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig


def _sized(vocab: int, dim: int, depth: int, hidden: int) -> LMConfig:
    """The settings that every size shares."""
    mlp = SwiGLUConfig(hidden)
    return LMConfig(vocab, dim, depth, (MLGRUConfig(),), mlp, projection="ternary", tied=False)


matmul_free = Arch(
    name="matmul_free",
    paper="Zhu et al. (2024), Scalable MatMul-free Language Modeling, arXiv 2406.02528",
    sizes={
        "tiny": _sized(BYTES, dim=128, depth=4, hidden=384),
        "370m": _sized(32_000, dim=1024, depth=24, hidden=2816),
        "1.3b": _sized(32_000, dim=2048, depth=24, hidden=5632),
        "2.7b": _sized(32_000, dim=2560, depth=32, hidden=6912),
    },
    # The names are all that was published: 370m and 1.3b have 374 and 1,365 million by the authors' own code, so that
    # only the largest name is a count to be held to.
    published={"2.7b": 2_700_000_000},
)
