"""A hybrid: Gated DeltaNet and sliding-window attention in turn, so that what decoding keeps is constant.

This is the sequence of mixers of Gated DeltaNet-H1 (Yang, Kautz & Hatamizadeh 2024, arXiv 2412.06464), of which no
weights and no count were published.
"""

from ..layers import AttentionConfig, GatedDeltaNetConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

window_hybrid = Arch(
    name="window_hybrid",
    paper="Yang, Kautz & Hatamizadeh (2024), Gated Delta Networks, arXiv 2412.06464",
    sizes={
        "tiny": LMConfig(
            BYTES,
            dim=128,
            depth=4,
            pattern=(GatedDeltaNetConfig(head_dim=32), AttentionConfig(head_dim=32, window=128)),
            mlp=SwiGLUConfig(),
        ),
    },
)
