"""Jamba: seven Mamba blocks to one of attention, each with SwiGLU (Lieber et al. 2024, arXiv 2403.19887).

Attention stands fifth of eight, and Mamba has norms on its low-rank step, B and C, as released. The released models
replace every other channel mixer by 16 experts, and their attention has no positions; there are no experts here, so
that there is only ``tiny``.
"""

from ..layers import AttentionConfig, MambaConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

_MAMBA = MambaConfig(inner_norm=True)

jamba = Arch(
    name="jamba",
    paper="Lieber et al. (2024), Jamba, arXiv 2403.19887",
    sizes={
        "tiny": LMConfig(
            BYTES,
            dim=96,
            depth=8,
            pattern=(_MAMBA,) * 4 + (AttentionConfig(head_dim=32),) + (_MAMBA,) * 3,
            mlp=SwiGLUConfig(192),
        ),
    },
)
