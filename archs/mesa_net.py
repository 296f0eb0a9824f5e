"""MesaNet: locally optimal test-time training, and SwiGLU (von Oswald et al. 2025, arXiv 2506.05233).

No published settings were found to check sizes against, so that there is only ``tiny``.
"""

from ..layers import MesaNetConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

mesa_net = Arch(
    name="mesa_net",
    paper="von Oswald et al. (2025), MesaNet, arXiv 2506.05233",
    sizes={
        "tiny": LMConfig(BYTES, dim=128, depth=5, pattern=(MesaNetConfig(head_dim=32),), mlp=SwiGLUConfig()),
    },
)
