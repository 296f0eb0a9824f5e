"""DeltaNet: the delta rule with short filters, and SwiGLU (Yang et al. 2024, arXiv 2406.06484).

Sizes are the paper's on SlimPajama, as in github.com/fla-org/flash-linear-attention: heads of 128, the 32,000 tokens of
Mistral. Embeddings are tied at 340M and not at 1.3B.
"""

from ..layers import DeltaNetConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

deltanet = Arch(
    name="deltanet",
    paper="Yang, Wang, Zhang, Shen & Kim (2024), Parallelizing ... with the Delta Rule, arXiv 2406.06484",
    sizes={
        "tiny": LMConfig(BYTES, dim=128, depth=5, pattern=(DeltaNetConfig(head_dim=32),), mlp=SwiGLUConfig()),
        "340m": LMConfig(32_000, dim=1024, depth=24, pattern=(DeltaNetConfig(),), mlp=SwiGLUConfig(2816)),
        "1.3b": LMConfig(32_000, dim=2048, depth=24, pattern=(DeltaNetConfig(),), mlp=SwiGLUConfig(5632), tied=False),
    },
    # 340m: the paper's figure, rounded; it fits tied embeddings (untied would be 374M). 1.3b: the tensors of
    # fla-hub/delta_net-1.3B-100B, equal to the last digit.
    published={"340m": 340_000_000, "1.3b": 1_365_677_056},
)
