"""GRU as a language model: GRU and a GELU channel mixer in residual blocks (Cho et al. 2014, arXiv 1406.1078).

The GRUs of the literature have no residual trunk such as this one, so that there is only ``tiny``.
"""

from ..layers import GeluMLPConfig, GRUConfig
from .arch import BYTES, Arch
from .config import LMConfig

gru = Arch(
    name="gru",
    paper="Cho et al. (2014), Learning Phrase Representations using RNN Encoder-Decoder, arXiv 1406.1078",
    sizes={"tiny": LMConfig(BYTES, dim=128, depth=4, pattern=(GRUConfig(),), mlp=GeluMLPConfig(), norm="layer")},
)
