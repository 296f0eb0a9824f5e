"""Sequence layers: token mixers and channel mixers, as Flax NNX modules, each with its config."""

from .attention import Attention, AttentionConfig
from .base import ChannelMixerConfig, Mixer, MixerConfig
from .deltanet import DeltaNet, DeltaNetConfig
from .gated_deltanet import GatedDeltaNet, GatedDeltaNetConfig
from .gla import GLA, GLAConfig
from .lightning import Lightning, LightningConfig
from .mamba2 import Mamba2, Mamba2Config
from .min_gru import MinGRU, MinGRUConfig
from .mlp import GeluMLP, GeluMLPConfig, SwiGLU, SwiGLUConfig
from .retnet import RetNet, RetNetConfig
from .rg_lru import RGLRU, RGLRUConfig
from .table import CHANNEL_MIXERS, MIXERS

__all__ = [
    "CHANNEL_MIXERS",
    "GLA",
    "MIXERS",
    "RGLRU",
    "Attention",
    "AttentionConfig",
    "ChannelMixerConfig",
    "DeltaNet",
    "DeltaNetConfig",
    "GLAConfig",
    "GatedDeltaNet",
    "GatedDeltaNetConfig",
    "GeluMLP",
    "GeluMLPConfig",
    "Lightning",
    "LightningConfig",
    "Mamba2",
    "Mamba2Config",
    "MinGRU",
    "MinGRUConfig",
    "Mixer",
    "MixerConfig",
    "RGLRUConfig",
    "RetNet",
    "RetNetConfig",
    "SwiGLU",
    "SwiGLUConfig",
]
