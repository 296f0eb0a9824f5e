"""Falcon-H1: Mamba-2 and attention side by side in every block, with SwiGLU (Zuo et al. 2025, arXiv 2507.22448).

The size is that of tiiuae/Falcon-H1-0.5B, whose Mamba-2 has a gate and no norm. Its multipliers of activations are
factors of its matrices, and no settings here.
"""

from ..layers import AttentionConfig, Mamba2Config, ParallelConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

_ROPE = 1e11

falcon_h1 = Arch(
    name="falcon_h1",
    paper="Zuo et al. (2025), Falcon-H1, arXiv 2507.22448",
    sizes={
        "tiny": LMConfig(
            BYTES,
            dim=128,
            depth=4,
            pattern=(
                ParallelConfig(
                    Mamba2Config(heads=6, head_dim=32, state_dim=32, out_norm=False),
                    AttentionConfig(heads=4, head_dim=32, kv_heads=1, rope_base=_ROPE),
                ),
            ),
            mlp=SwiGLUConfig(256),
            norm_eps=1e-5,
        ),
        "0.5b": LMConfig(
            32_784,
            dim=1024,
            depth=36,
            pattern=(
                ParallelConfig(
                    Mamba2Config(heads=24, head_dim=64, state_dim=128, out_norm=False),
                    AttentionConfig(heads=8, head_dim=64, kv_heads=2, rope_base=_ROPE),
                ),
            ),
            mlp=SwiGLUConfig(2048),
            tied=False,
            norm_eps=1e-5,
        ),
    },
    # What transformers builds from the published config.
    published={"0.5b": 521_411_104},
)
