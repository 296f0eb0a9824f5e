"""The table of layers: a line here earns a layer the laws of ``tests/test_laws.py`` and a row of ``subquad list``."""

from .attention import AttentionConfig
from .base import ChannelMixerConfig, MixerConfig
from .deltanet import DeltaNetConfig
from .gated_deltanet import GatedDeltaNetConfig
from .gla import GLAConfig
from .lightning import LightningConfig
from .mamba2 import Mamba2Config
from .min_gru import MinGRUConfig
from .mlp import GeluMLPConfig, SwiGLUConfig
from .retnet import RetNetConfig
from .rg_lru import RGLRUConfig

MIXERS: dict[str, type[MixerConfig]] = {
    "attention": AttentionConfig,
    "deltanet": DeltaNetConfig,
    "gated_deltanet": GatedDeltaNetConfig,
    "gla": GLAConfig,
    "lightning": LightningConfig,
    "mamba2": Mamba2Config,
    "min_gru": MinGRUConfig,
    "retnet": RetNetConfig,
    "rg_lru": RGLRUConfig,
}

CHANNEL_MIXERS: dict[str, type[ChannelMixerConfig]] = {
    "gelu_mlp": GeluMLPConfig,
    "swiglu": SwiGLUConfig,
}

GROWING = frozenset({"attention"})
"""Mixers whose state grows with the sequence; what the others keep is constant."""
