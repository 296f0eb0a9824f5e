"""RetNet: multi-scale retention and SwiGLU (Sun et al. 2023, arXiv 2307.08621).

Sizes are those of the checkpoints of github.com/fla-org/flash-linear-attention: heads of 256 key channels and twice as
many values, a channel mixer of 4/3 the model width, untied embeddings, the 32,000 tokens of Mistral. The paper's models
have a GELU channel mixer of as many parameters, layer norms, and a larger vocabulary; they were not released.
"""

from ..layers import RetNetConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

retnet = Arch(
    name="retnet",
    paper="Sun et al. (2023), Retentive Network, arXiv 2307.08621",
    sizes={
        "tiny": LMConfig(BYTES, dim=128, depth=5, pattern=(RetNetConfig(head_dim=32),), mlp=SwiGLUConfig(176)),
        "1.3b": LMConfig(32_000, dim=2048, depth=24, pattern=(RetNetConfig(),), mlp=SwiGLUConfig(2816), tied=False),
        "2.7b": LMConfig(32_000, dim=2560, depth=32, pattern=(RetNetConfig(),), mlp=SwiGLUConfig(3584), tied=False),
    },
    # As the model cards of fla-hub/retnet-1.3B-100B and -2.7B-100B state them.
    published={"1.3b": 1_350_000_000, "2.7b": 2_720_000_000},
)
