"""QRNN as a language model: QRNN and a GELU channel mixer in residual blocks (Bradbury et al. 2016, arXiv 1611.01576).

The paper's language models have no residual trunk such as this one, so that there is only ``tiny``.
"""

from ..layers import GeluMLPConfig, QRNNConfig
from .arch import BYTES, Arch
from .config import LMConfig

qrnn = Arch(
    name="qrnn",
    paper="Bradbury, Merity, Xiong & Socher (2016), Quasi-Recurrent Neural Networks, arXiv 1611.01576",
    sizes={"tiny": LMConfig(BYTES, dim=128, depth=4, pattern=(QRNNConfig(),), mlp=GeluMLPConfig(), norm="layer")},
)
