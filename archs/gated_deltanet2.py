"""Gated DeltaNet-2: erase and write gates by channel, and SwiGLU (Hatamizadeh, Choi & Kautz 2026, arXiv 2605.22791).

The paper's size is 1.3B; its settings and an exact count were not found, so that no published size is here.
"""

from ..layers import GatedDeltaNet2Config, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

gated_deltanet2 = Arch(
    name="gated_deltanet2",
    paper="Hatamizadeh, Choi & Kautz (2026), Gated DeltaNet-2, arXiv 2605.22791",
    sizes={"tiny": LMConfig(BYTES, dim=128, depth=4, pattern=(GatedDeltaNet2Config(head_dim=32),), mlp=SwiGLUConfig())},
)
