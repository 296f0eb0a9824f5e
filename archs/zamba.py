"""Zamba: Mamba blocks, some of which are fed by one shared transformer block (Glorioso et al. 2024, arXiv 2405.16712).

The 7B is that of ``transformers`` (Zyphra/Zamba-7B-v1), but for Mamba's maps to the steps, B and C: theirs are two, one
for each half of the channels, with as many parameters as the one here.
"""

from ..layers import AttentionConfig, GeluMLPConfig, MambaConfig, ZambaConfig
from .arch import BYTES, Arch
from .config import LMConfig


def _zamba(vocab: int, dim: int, depth: int, heads: int, pattern: str) -> LMConfig:
    """Blocks of Mamba alone (m), and with the shared block (z)."""
    attention = AttentionConfig(heads=heads, head_dim=2 * dim // heads, rope_dim=0)
    fed = ZambaConfig(MambaConfig(), attention, GeluMLPConfig(hidden=4 * dim, gated=True, exact=True))
    return LMConfig(vocab, dim, depth, tuple(fed if letter == "z" else fed.mixer for letter in pattern), norm_eps=1e-5)


zamba = Arch(
    name="zamba",
    paper="Glorioso et al. (2024), Zamba, arXiv 2405.16712",
    sizes={
        "tiny": _zamba(BYTES, 112, 6, 4, "mmz"),
        "7b": _zamba(32_000, 3712, 76, 16, "mmz" + "mmmmzm" * 12 + "m"),
    },
    # What transformers builds from the published config; the model card rounds it.
    published={"7b": 7_232_490_496},
)
