"""The mixers of MiniMax-01: seven of lightning attention to one of softmax attention (MiniMax 2025, arXiv 2501.08313).

The published model has mixtures of 32 experts for channel mixers, 456 billion parameters in all, which nothing here
expresses; this is its sequence of mixers with SwiGLU. Its softmax attention rotates half of each head.
"""

from ..layers import AttentionConfig, LightningConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

minimax = Arch(
    name="minimax",
    paper="MiniMax (2025), MiniMax-01, arXiv 2501.08313",
    sizes={
        "tiny": LMConfig(
            BYTES,
            dim=96,
            depth=8,
            pattern=(LightningConfig(head_dim=32),) * 7 + (AttentionConfig(head_dim=32, kv_heads=1),),
            mlp=SwiGLUConfig(),
        ),
    },
)
