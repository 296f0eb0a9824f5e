"""HGRN: the complex gated recurrence and SwiGLU (Qin, Yang & Zhong 2023, arXiv 2311.04823).

The authors' language models (44M on WikiText, 150M to 1B on the Pile) are published as rounded names without the
settings that would fix a count, so that there is only ``tiny``.
"""

from ..layers import HGRNConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

hgrn = Arch(
    name="hgrn",
    paper="Qin, Yang & Zhong (2023), Hierarchically Gated Recurrent Neural Network, arXiv 2311.04823",
    sizes={"tiny": LMConfig(BYTES, dim=128, depth=4, pattern=(HGRNConfig(),), mlp=SwiGLUConfig(320), norm="layer")},
)
