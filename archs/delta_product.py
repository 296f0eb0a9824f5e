"""Gated DeltaProduct: two Householder steps a token, and SwiGLU (Siems et al. 2025, arXiv 2502.10297).

No weights were released and no exact counts published, so that no published size is here.
"""

from ..layers import DeltaProductConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

delta_product = Arch(
    name="delta_product",
    paper="Siems, Carstensen, Zela, Hutter, Pontil & Grazzi (2025), DeltaProduct, arXiv 2502.10297",
    sizes={
        "tiny": LMConfig(
            BYTES, dim=128, depth=4, pattern=(DeltaProductConfig(head_dim=32, expand_v=1),), mlp=SwiGLUConfig()
        ),
    },
)
