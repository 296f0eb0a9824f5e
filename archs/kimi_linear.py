"""Kimi Linear: three blocks of Kimi Delta Attention to one of attention, with SwiGLU (Kimi Team 2025, 2510.26692).

The published model, 48B of which 3B are active, has two parts that are not here: its channel mixers are mixtures of
experts, and its attention compresses keys and values and has no positions. No dense size was published.
"""

from ..layers import AttentionConfig, KDAConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

kimi_linear = Arch(
    name="kimi_linear",
    paper="Kimi Team (2025), Kimi Linear, arXiv 2510.26692",
    sizes={
        "tiny": LMConfig(
            BYTES,
            dim=128,
            depth=4,
            pattern=(KDAConfig(head_dim=32),) * 3 + (AttentionConfig(head_dim=32),),
            mlp=SwiGLUConfig(384),
        ),
    },
)
