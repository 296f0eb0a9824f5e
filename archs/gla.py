"""The GLA Transformer: gated linear attention and SwiGLU (Yang et al. 2023, arXiv 2312.06635).

Sizes are the paper's on SlimPajama, as in github.com/fla-org/flash-linear-attention: 4 heads, keys half as wide as the
model, the 32,000 tokens of Mistral. Embeddings are tied at 340M and not at 1.3B.
"""

from ..layers import GLAConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

gla = Arch(
    name="gla",
    paper="Yang, Wang, Shen, Panda & Kim (2023), Gated Linear Attention Transformers, arXiv 2312.06635",
    sizes={
        "tiny": LMConfig(BYTES, dim=128, depth=5, pattern=(GLAConfig(head_dim=16),), mlp=SwiGLUConfig()),
        "340m": LMConfig(
            32_000, dim=1024, depth=24, pattern=(GLAConfig(heads=4, head_dim=128),), mlp=SwiGLUConfig(2816)
        ),
        "1.3b": LMConfig(
            32_000, dim=2048, depth=24, pattern=(GLAConfig(heads=4, head_dim=256),), mlp=SwiGLUConfig(5632), tied=False
        ),
    },
    # 340m: the paper's figure, rounded. 1.3b: the tensors of fla-hub/gla-1.3B-100B, equal to the last digit.
    published={"340m": 340_000_000, "1.3b": 1_365_514_240},
)
