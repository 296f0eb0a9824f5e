"""The table of layers: a line here earns a layer the laws of ``tests/test_laws.py`` and a row of ``subquad list``."""

from .attention import AttentionConfig
from .base import ChannelMixerConfig, MixerConfig
from .deltanet import DeltaNetConfig
from .gated_deltanet import GatedDeltaNetConfig
from .gla import GLAConfig
from .mamba2 import Mamba2Config
from .mamba3 import Mamba3Config
from .mesa_net import MesaNetConfig
from .min_gru import MinGRUConfig
from .mlp import GeluMLPConfig, SwiGLUConfig
from .rg_lru import RGLRUConfig
from .ttt_linear import TTTLinearConfig

MIXERS: dict[str, type[MixerConfig]] = {
    "attention": AttentionConfig,
    "deltanet": DeltaNetConfig,
    "gated_deltanet": GatedDeltaNetConfig,
    "gla": GLAConfig,
    "mamba2": Mamba2Config,
    "mamba3": Mamba3Config,
    "mesa_net": MesaNetConfig,
    "min_gru": MinGRUConfig,
    "rg_lru": RGLRUConfig,
    "ttt_linear": TTTLinearConfig,
}

CHANNEL_MIXERS: dict[str, type[ChannelMixerConfig]] = {
    "gelu_mlp": GeluMLPConfig,
    "swiglu": SwiGLUConfig,
}

GROWING = frozenset({"attention"})
"""Mixers whose state grows with the sequence; what the others keep is constant."""
