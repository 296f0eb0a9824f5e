"""xLSTM[a:b]: a blocks of mLSTM to b of sLSTM, each of these with a gated channel mixer after it (arXiv 2405.04517).

Sizes are the paper's: 24 or 48 blocks, 4 heads, 50,304 rows of the embedding, and a head of its own. In xLSTM[7:1]
every eighth block is sLSTM here. Its channel mixer stands in the pattern as a block, so that 48 blocks are 54.
"""

from ..layers import (
    FeedForwardConfig,
    GeluMLPConfig,
    MixerConfig,
    MLSTMConfig,
    MLSTMLargeConfig,
    SLSTMConfig,
    SwiGLUConfig,
)
from .arch import BYTES, Arch
from .config import LMConfig


def blocks(a: int, b: int, hidden: int) -> tuple[MixerConfig, ...]:
    """The pattern of xLSTM[a:b] with channel mixers of width ``hidden`` after the sLSTM."""
    after = FeedForwardConfig(GeluMLPConfig(gated=True, hidden=hidden))
    return (MLSTMConfig(),) * a + (SLSTMConfig(), after) * b


def hidden(dim: int) -> int:
    """The official width of a channel mixer: 1.3 times the model's, in whole 64s."""
    return -(-13 * dim // 640) * 64


def lm(vocab: int, dim: int, count: int, a: int, b: int) -> LMConfig:
    """xLSTM[a:b] of ``count`` blocks in the paper's sense."""
    pattern = blocks(a, b, hidden(dim))
    depth = count // (a + b) * len(pattern)
    return LMConfig(
        vocab, dim=dim, depth=depth, pattern=pattern, norm="layer", tied=False, embed_std=(0.4 / dim) ** 0.5
    )


PAPER = "Beck et al. (2024), xLSTM, arXiv 2405.04517"
SIZES = {"125m": (768, 24), "350m": (1024, 48), "760m": (1536, 48), "1.3b": (2048, 48)}

# Published counts: two that a public page states, rounded. Of the other sizes no count was found to hold ours to.
xlstm_1_0 = Arch(
    name="xlstm_1_0",
    paper=PAPER,
    sizes={
        "tiny": lm(BYTES, 128, 8, 1, 0),
        **{size: lm(50_304, dim, count, 1, 0) for size, (dim, count) in SIZES.items()},
    },
    published={"350m": 409_000_000},
)

xlstm_7_1 = Arch(
    name="xlstm_7_1",
    paper=PAPER,
    sizes={
        "tiny": lm(BYTES, 128, 8, 7, 1),
        **{size: lm(50_304, dim, count, 7, 1) for size, (dim, count) in SIZES.items()},
    },
    published={"350m": 408_000_000},
)


def large(vocab: int, dim: int, depth: int, heads: int, hidden: int) -> LMConfig:
    """The trunk of xLSTM 7B."""
    pattern, std = (MLSTMLargeConfig(heads=heads),), (0.4 / dim) ** 0.5
    return LMConfig(vocab, dim, depth, pattern, SwiGLUConfig(hidden), tied=False, embed_std=std, soft_cap=30.0)


xlstm_large = Arch(
    name="xlstm_large",
    paper="Beck et al. (2025), xLSTM 7B, arXiv 2503.13427",
    sizes={"tiny": large(BYTES, 128, 5, 4, 320), "7b": large(50_304, 4096, 32, 8, 10_944)},
    # The paper's table of settings.
    published={"7b": 6_865_424_896},
)
