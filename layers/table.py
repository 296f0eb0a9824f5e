"""The table of layers: a line here earns a layer the laws of ``tests/test_laws.py`` and a row of ``subquad list``."""

from .attention import AttentionConfig
from .base import ChannelMixerConfig, MixerConfig
from .base_conv import BaseConvConfig
from .deltanet import DeltaNetConfig
from .gated_deltanet import GatedDeltaNetConfig
from .gla import GLAConfig
from .gsa import GSAConfig
from .hgrn2 import HGRN2Config
from .lightning import LightningConfig
from .linear_attention import LinearAttentionConfig
from .mamba2 import Mamba2Config
from .min_gru import MinGRUConfig
from .mlp import GeluMLPConfig, SwiGLUConfig
from .retnet import RetNetConfig
from .rg_lru import RGLRUConfig
from .rwkv6 import RWKV6Config
from .rwkv6_channel import RWKV6ChannelConfig

MIXERS: dict[str, type[MixerConfig]] = {
    "attention": AttentionConfig,
    "base_conv": BaseConvConfig,
    "deltanet": DeltaNetConfig,
    "gated_deltanet": GatedDeltaNetConfig,
    "gla": GLAConfig,
    "gsa": GSAConfig,
    "hgrn2": HGRN2Config,
    "lightning": LightningConfig,
    "linear_attention": LinearAttentionConfig,
    "mamba2": Mamba2Config,
    "min_gru": MinGRUConfig,
    "retnet": RetNetConfig,
    "rg_lru": RGLRUConfig,
    "rwkv6": RWKV6Config,
    "rwkv6_channel": RWKV6ChannelConfig,
}

CHANNEL_MIXERS: dict[str, type[ChannelMixerConfig]] = {
    "gelu_mlp": GeluMLPConfig,
    "swiglu": SwiGLUConfig,
}

GROWING = frozenset({"attention"})
"""Mixers whose state grows with the sequence; what the others keep is constant."""
