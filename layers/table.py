"""The table of layers: a line here earns a layer the laws of ``tests/test_laws.py`` and a row of ``subquad list``."""

from .attention import AttentionConfig
from .base import ChannelMixerConfig, MixerConfig
from .comba import CombaConfig
from .delta_product import DeltaProductConfig
from .deltanet import DeltaNetConfig
from .gated_deltanet import GatedDeltaNetConfig
from .gated_deltanet2 import GatedDeltaNet2Config
from .gla import GLAConfig
from .kda import KDAConfig
from .mamba2 import Mamba2Config
from .min_gru import MinGRUConfig
from .mlp import GeluMLPConfig, SwiGLUConfig
from .rg_lru import RGLRUConfig
from .rwkv7 import RWKV7Config
from .rwkv7_channel import RWKV7ChannelConfig

MIXERS: dict[str, type[MixerConfig]] = {
    "attention": AttentionConfig,
    "comba": CombaConfig,
    "delta_product": DeltaProductConfig,
    "deltanet": DeltaNetConfig,
    "gated_deltanet": GatedDeltaNetConfig,
    "gated_deltanet2": GatedDeltaNet2Config,
    "gla": GLAConfig,
    "kda": KDAConfig,
    "mamba2": Mamba2Config,
    "min_gru": MinGRUConfig,
    "rg_lru": RGLRUConfig,
    "rwkv7": RWKV7Config,
    "rwkv7_channel": RWKV7ChannelConfig,
}

CHANNEL_MIXERS: dict[str, type[ChannelMixerConfig]] = {
    "gelu_mlp": GeluMLPConfig,
    "swiglu": SwiGLUConfig,
}

GROWING = frozenset({"attention"})
"""Mixers whose state grows with the sequence; what the others keep is constant."""
