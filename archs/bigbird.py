"""BigBird as a language model: a window of blocks, random blocks and global tokens (Zaheer et al. 2020, 2007.14062).

The published models are encoders; ``base`` has the sizes of google/bigbird-roberta-base in a causal trunk with rotary
positions, for which no count was published.
"""

from ..layers import BigBirdConfig, GeluMLPConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

bigbird = Arch(
    name="bigbird",
    paper="Zaheer et al. (2020), Big Bird, arXiv 2007.14062",
    sizes={
        "tiny": LMConfig(
            BYTES,
            dim=128,
            depth=5,
            pattern=(BigBirdConfig(head_dim=32, block_size=16, global_tokens=16),),
            mlp=SwiGLUConfig(),
        ),
        "base": LMConfig(
            50_358,
            dim=768,
            depth=12,
            pattern=(BigBirdConfig(qkv_bias=True, out_bias=True),),
            mlp=GeluMLPConfig(hidden=3072, bias=True),
            norm="layer",
        ),
    },
)
