"""The linear Transformer: linear attention with elu features, and SwiGLU (Katharopoulos et al. 2020, arXiv 2006.16236).

The paper's own models are of images and speech; this is a baseline for language.
"""

from ..layers import LinearAttentionConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

linear_attention = Arch(
    name="linear_attention",
    paper="Katharopoulos, Vyas, Pappas & Fleuret (2020), Transformers are RNNs, arXiv 2006.16236",
    sizes={
        "tiny": LMConfig(BYTES, dim=128, depth=5, pattern=(LinearAttentionConfig(head_dim=32),), mlp=SwiGLUConfig()),
    },
)
