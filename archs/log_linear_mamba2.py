"""Log-Linear Mamba-2: Mamba-2 whose reads are weighed by distance (Guo et al. 2025, arXiv 2506.04761).

Fifteen levels tell 2^14 tokens apart, as in github.com/fla-org/flash-linear-attention. No exact counts were found, so
that there is only ``tiny``, with fewer levels.
"""

from ..layers import Mamba2Config
from .arch import BYTES, Arch
from .config import LMConfig

log_linear_mamba2 = Arch(
    name="log_linear_mamba2",
    paper="Guo et al. (2025), Log-Linear Attention, arXiv 2506.04761",
    sizes={
        "tiny": LMConfig(BYTES, dim=128, depth=8, pattern=(Mamba2Config(head_dim=32, state_dim=64, levels=11),)),
    },
)
