"""Gated slot attention and SwiGLU (Zhang et al. 2024, arXiv 2409.07146).

Sizes are the paper's, as in the checkpoints of github.com/fla-org/flash-linear-attention: 4 heads of 64 slots, untied
embeddings, the 32,000 tokens of Mistral.
"""

from ..layers import GSAConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

gsa = Arch(
    name="gsa",
    paper="Zhang et al. (2024), Gated Slot Attention, arXiv 2409.07146",
    sizes={
        "tiny": LMConfig(BYTES, dim=128, depth=5, pattern=(GSAConfig(head_dim=32, slots=16),), mlp=SwiGLUConfig()),
        "1.3b": LMConfig(
            32_000, dim=2048, depth=24, pattern=(GSAConfig(heads=4, head_dim=512),), mlp=SwiGLUConfig(5632), tied=False
        ),
        "2.7b": LMConfig(
            32_000, dim=2560, depth=32, pattern=(GSAConfig(heads=4, head_dim=640),), mlp=SwiGLUConfig(6912), tied=False
        ),
    },
    # The files of fla-hub/gsa-1.3B-100B and -2.7B-100B, 2.75 and 5.46 GB of bfloat16.
    published={"1.3b": 1_375_000_000, "2.7b": 2_730_000_000},
)
