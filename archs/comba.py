"""Comba: Gated DeltaNet with closed-loop control, and SwiGLU (Hu et al. 2025, arXiv 2506.02475).

``1.3b`` has the settings of github.com/fla-org/flash-linear-attention: 6 heads whose keys fill three quarters of the
model width, untied embeddings, 32,000 tokens. The paper names it 1.3B and gives no exact count, so that none is held.
"""

from ..layers import CombaConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

comba = Arch(
    name="comba",
    paper="Hu et al. (2025), Comba, arXiv 2506.02475",
    sizes={
        "tiny": LMConfig(
            BYTES, dim=128, depth=4, pattern=(CombaConfig(head_dim=32, correction=0.02),), mlp=SwiGLUConfig()
        ),
        "1.3b": LMConfig(
            32_000, dim=2048, depth=21, pattern=(CombaConfig(heads=6),), mlp=SwiGLUConfig(5632), tied=False
        ),
    },
)
