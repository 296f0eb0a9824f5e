"""A Transformer with mixture of block attention (Lu et al. 2025, arXiv 2502.13189).

The paper's own models state neither vocabulary nor channel mixers, so that no published size is here; blocks of 512
tokens of which 3 are chosen are its scaling study's.
"""

from ..layers import MoBAConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

moba = Arch(
    name="moba",
    paper="Lu et al. (2025), MoBA, arXiv 2502.13189",
    sizes={
        "tiny": LMConfig(
            BYTES, dim=128, depth=5, pattern=(MoBAConfig(head_dim=32, block_size=16),), mlp=SwiGLUConfig()
        ),
    },
)
