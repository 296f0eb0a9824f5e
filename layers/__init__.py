"""Sequence layers: token mixers and channel mixers, as Flax NNX modules, each with its config."""

from .attention import Attention, AttentionConfig
from .base import ChannelMixerConfig, Mixer, MixerConfig
from .deltanet import DeltaNet, DeltaNetConfig
from .gated_deltanet import GatedDeltaNet, GatedDeltaNetConfig
from .gla import GLA, GLAConfig
from .mamba2 import Mamba2, Mamba2Config
from .mamba3 import Mamba3, Mamba3Config
from .mesa_net import MesaNet, MesaNetConfig
from .min_gru import MinGRU, MinGRUConfig
from .mlp import GeluMLP, GeluMLPConfig, SwiGLU, SwiGLUConfig
from .rg_lru import RGLRU, RGLRUConfig
from .table import CHANNEL_MIXERS, MIXERS
from .ttt_linear import TTTLinear, TTTLinearConfig

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
    "Mamba2",
    "Mamba2Config",
    "Mamba3",
    "Mamba3Config",
    "MesaNet",
    "MesaNetConfig",
    "MinGRU",
    "MinGRUConfig",
    "Mixer",
    "MixerConfig",
    "RGLRUConfig",
    "SwiGLU",
    "SwiGLUConfig",
    "TTTLinear",
    "TTTLinearConfig",
]
