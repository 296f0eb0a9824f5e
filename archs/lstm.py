"""LSTM as a language model: LSTM and a GELU channel mixer in residual blocks (Greff et al. 2015, arXiv 1503.04069).

The LSTMs of the literature have no residual trunk such as this one, so that there is only ``tiny``.
"""

from ..layers import GeluMLPConfig, LSTMConfig
from .arch import BYTES, Arch
from .config import LMConfig

lstm = Arch(
    name="lstm",
    paper="Greff, Srivastava, Koutnik, Steunebrink & Schmidhuber (2015), A Search Space Odyssey, arXiv 1503.04069",
    sizes={"tiny": LMConfig(BYTES, dim=128, depth=3, pattern=(LSTMConfig(),), mlp=GeluMLPConfig(640), norm="layer")},
)
