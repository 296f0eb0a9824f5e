"""A Transformer with native sparse attention (Yuan et al. 2025, arXiv 2502.11089).

The published model, 27 billion parameters of which 3 are active, has mixtures of experts for channel mixers, which
nothing here expresses.
"""

from ..layers import NSAConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

nsa = Arch(
    name="nsa",
    paper="Yuan et al. (2025), Native Sparse Attention, arXiv 2502.11089",
    sizes={
        "tiny": LMConfig(
            BYTES,
            dim=128,
            depth=5,
            pattern=(NSAConfig(head_dim=32, kv_heads=1, block_size=8, chosen=4, window=64),),
            mlp=SwiGLUConfig(),
        ),
    },
)
