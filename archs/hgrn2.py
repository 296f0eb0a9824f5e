"""HGRN2: the gated linear RNN with state expansion, and SwiGLU (Qin et al. 2024, arXiv 2404.07904).

Sizes are those of the checkpoints of github.com/fla-org/flash-linear-attention: heads of 128, untied embeddings, the
32,000 tokens of Mistral.
"""

from ..layers import HGRN2Config, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

hgrn2 = Arch(
    name="hgrn2",
    paper="Qin et al. (2024), HGRN2, arXiv 2404.07904",
    sizes={
        "tiny": LMConfig(BYTES, dim=128, depth=5, pattern=(HGRN2Config(head_dim=32),), mlp=SwiGLUConfig()),
        "1.3b": LMConfig(32_000, dim=2048, depth=24, pattern=(HGRN2Config(),), mlp=SwiGLUConfig(5632), tied=False),
        "2.7b": LMConfig(32_000, dim=2560, depth=32, pattern=(HGRN2Config(),), mlp=SwiGLUConfig(6912), tied=False),
    },
    # The files of fla-hub/hgrn2-1.3B-100B and -2.7B-100B, 2.73 and 5.40 GB of bfloat16.
    published={"1.3b": 1_365_000_000, "2.7b": 2_700_000_000},
)
