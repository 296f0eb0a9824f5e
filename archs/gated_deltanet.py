"""Gated DeltaNet: the gated delta rule and SwiGLU (Yang, Kautz & Hatamizadeh 2024, arXiv 2412.06464).

Sizes are those of the authors' code, github.com/NVlabs/GatedDeltaNet: 9 heads whose keys fill three quarters of the
model width, tied embeddings, the 32,000 tokens of Llama 2. No weights were released.
"""

from ..layers import GatedDeltaNetConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

gated_deltanet = Arch(
    name="gated_deltanet",
    paper="Yang, Kautz & Hatamizadeh (2024), Gated Delta Networks, arXiv 2412.06464",
    sizes={
        "tiny": LMConfig(BYTES, dim=128, depth=4, pattern=(GatedDeltaNetConfig(head_dim=32),), mlp=SwiGLUConfig()),
        "0.4b": LMConfig(
            32_000, dim=1536, depth=11, pattern=(GatedDeltaNetConfig(heads=9, head_dim=128),), mlp=SwiGLUConfig(6144)
        ),
        "1.3b": LMConfig(
            32_000, dim=2400, depth=16, pattern=(GatedDeltaNetConfig(heads=9, head_dim=200),), mlp=SwiGLUConfig(5888)
        ),
    },
    # The paper's figure, rounded: no exact count was published. The authors' settings named 0.4B count 516,837,830 with
    # embeddings and 467,685,830 without, so that this name is no count to be held to.
    published={"1.3b": 1_300_000_000},
)
