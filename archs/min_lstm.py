"""minLSTM as a language model: minLSTM and a GELU channel mixer (Feng et al. 2024, arXiv 2410.01201).

The paper trains small models on short tasks and prints no parameter counts, so that there is only ``tiny``.
"""

from ..layers import GeluMLPConfig, MinLSTMConfig
from .arch import BYTES, Arch
from .config import LMConfig

min_lstm = Arch(
    name="min_lstm",
    paper="Feng, Tung, Ahmed, Bengio & Hajimirsadeghi (2024), Were RNNs All We Needed?, arXiv 2410.01201",
    sizes={
        "tiny": LMConfig(
            BYTES, dim=128, depth=4, pattern=(MinLSTMConfig(expand=2.0),), mlp=GeluMLPConfig(448), norm="layer"
        ),
    },
)
