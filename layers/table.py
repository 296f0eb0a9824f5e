"""The table of layers: a line here earns a layer the laws of ``tests/test_laws.py`` and a row of ``subquad list``."""

from .attention import AttentionConfig
from .base import ChannelMixerConfig, MixerConfig
from .deltanet import DeltaNetConfig
from .gated_deltanet import GatedDeltaNetConfig
from .gla import GLAConfig
from .h3 import H3Config
from .hyena import HyenaConfig
from .longhorn import LonghornConfig
from .lru import LRUConfig
from .mamba import MambaConfig
from .mamba2 import Mamba2Config
from .mamba3 import Mamba3Config
from .mesa_net import MesaNetConfig
from .min_gru import MinGRUConfig
from .mlp import GeluMLPConfig, SwiGLUConfig
from .rg_lru import RGLRUConfig
from .s4d import S4DConfig
from .s5 import S5Config
from .ttt_linear import TTTLinearConfig

MIXERS: dict[str, type[MixerConfig]] = {
    "attention": AttentionConfig,
    "deltanet": DeltaNetConfig,
    "gated_deltanet": GatedDeltaNetConfig,
    "gla": GLAConfig,
    "h3": H3Config,
    "hyena": HyenaConfig,
    "longhorn": LonghornConfig,
    "lru": LRUConfig,
    "mamba": MambaConfig,
    "mamba2": Mamba2Config,
    "mamba3": Mamba3Config,
    "mesa_net": MesaNetConfig,
    "min_gru": MinGRUConfig,
    "rg_lru": RGLRUConfig,
    "s4d": S4DConfig,
    "s5": S5Config,
    "ttt_linear": TTTLinearConfig,
}

CHANNEL_MIXERS: dict[str, type[ChannelMixerConfig]] = {
    "gelu_mlp": GeluMLPConfig,
    "swiglu": SwiGLUConfig,
}

GROWING = frozenset({"attention", "hyena"})
"""Mixers whose state grows with the sequence (Hyena's up to its filters' length); what the others keep is constant."""
