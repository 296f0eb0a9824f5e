"""Based: gated convolutions, with linear attention and sliding-window attention among them, and SwiGLU.

Sizes are those of the reference configurations of github.com/HazyResearch/based (Arora et al. 2024, arXiv 2402.18668):
16 heads, Taylor features of 16 channels, a channel mixer twice the model width, tied embeddings, and GPT-2's 50,257
tokens padded to a multiple of 8. Their window of 256 counts both sides, so that a token sees itself and 128 before it.
"""

from ..layers import AttentionConfig, BaseConvConfig, LinearAttentionConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig


def _based(vocab: int, dim: int, depth: int, linear: tuple[int, ...], heads: int, window: int) -> LMConfig:
    """Linear attention in the blocks ``linear``, a window in the next of each, a convolution in all others."""
    head_dim = dim // heads
    special = {
        **{i: LinearAttentionConfig(head_dim=head_dim, feature_dim=16, features="taylor") for i in linear},
        **{i + 1: AttentionConfig(head_dim=head_dim, window=window) for i in linear},
    }
    pattern = tuple(special.get(i, BaseConvConfig()) for i in range(depth))
    return LMConfig(vocab=vocab, dim=dim, depth=depth, pattern=pattern, mlp=SwiGLUConfig(2 * dim))


based = Arch(
    name="based",
    paper="Arora et al. (2024), Simple linear attention language models (Based), arXiv 2402.18668",
    sizes={
        "tiny": _based(BYTES, dim=128, depth=5, linear=(1,), heads=4, window=64),
        "360m": _based(50_264, dim=1024, depth=27, linear=(1, 6, 11, 16, 21), heads=16, window=129),
        "1.3b": _based(50_264, dim=1792, depth=36, linear=(1, 6, 11, 16, 21, 27, 33), heads=16, window=129),
    },
    # The files of hazyresearch/based-360m and based-1b, 1.45 and 5.4 GB of float32.
    published={"360m": 362_500_000, "1.3b": 1_350_000_000},
)
