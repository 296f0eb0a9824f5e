"""Hyena: blocks of the Hyena mixer with a GELU channel mixer (Poli et al. 2023, arXiv 2302.10866).

The size is that of the released small model, as configured in github.com/HazyResearch/safari: channel mixers twice as
wide as the model, filters of 2,048 lags, the tokens of GPT-2 padded to a multiple of 8.
"""

from ..layers import GeluMLPConfig, HyenaConfig
from .arch import BYTES, Arch
from .config import LMConfig

hyena = Arch(
    name="hyena",
    paper="Poli et al. (2023), Hyena Hierarchy, arXiv 2302.10866",
    sizes={
        "tiny": LMConfig(
            BYTES,
            dim=128,
            depth=6,
            pattern=(HyenaConfig(filter_features=5),),
            mlp=GeluMLPConfig(hidden=256, bias=True),
            norm="layer",
        ),
        "153m": LMConfig(
            50_264, dim=864, depth=18, pattern=(HyenaConfig(),), mlp=GeluMLPConfig(hidden=1728, bias=True), norm="layer"
        ),
    },
    # The paper's figure, which is rounded. The official code's count has 1.2 M more: it trains the position features.
    published={"153m": 153_000_000},
)
