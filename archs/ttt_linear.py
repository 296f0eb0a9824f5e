"""TTT-Linear: test-time training of a linear map, and SwiGLU (Sun et al. 2024, arXiv 2407.04620).

Sizes are those of the authors' code, github.com/test-time-training/ttt-lm-jax: tied embeddings and the 32,000 tokens of
Llama 2. Their blocks also have a filter of width 4 on the residual stream, normed, before each mixer.
"""

from ..layers import SwiGLUConfig, TTTLinearConfig
from .arch import BYTES, Arch
from .config import LMConfig


def _pile(dim: int, depth: int, heads: int, hidden: int) -> LMConfig:
    mixer = TTTLinearConfig(heads=heads, head_dim=dim // heads)
    return LMConfig(32_000, dim=dim, depth=depth, pattern=(mixer,), mlp=SwiGLUConfig(hidden))


ttt_linear = Arch(
    name="ttt_linear",
    paper="Sun et al. (2024), Learning to (Learn at Test Time), arXiv 2407.04620",
    sizes={
        "tiny": LMConfig(BYTES, dim=128, depth=5, pattern=(TTTLinearConfig(head_dim=32),), mlp=SwiGLUConfig()),
        "125m": _pile(768, 12, 12, 2048),
        "350m": _pile(1024, 24, 16, 2736),
        "760m": _pile(1536, 24, 16, 4096),
        "1.3b": _pile(2048, 24, 32, 5504),
    },
    # The names are too coarse to be held to: no exact counts, and no weights of these sizes were found. Ours have
    # 110,368,848, 337,536,768, 733,387,008 and 1,285,344,384 parameters, the filters on the residual stream left out.
)
