"""Sequence layers: token mixers and channel mixers, as Flax NNX modules, each with its config."""

from .attention import Attention, AttentionConfig
from .base import ChannelMixerConfig, Mixer, MixerConfig
from .deltanet import DeltaNet, DeltaNetConfig
from .gated_deltanet import GatedDeltaNet, GatedDeltaNetConfig
from .gla import GLA, GLAConfig
from .h3 import H3, H3Config
from .hyena import Hyena, HyenaConfig
from .longhorn import Longhorn, LonghornConfig
from .lru import LRU, LRUConfig
from .mamba import Mamba, MambaConfig
from .mamba2 import Mamba2, Mamba2Config
from .mamba3 import Mamba3, Mamba3Config
from .mesa_net import MesaNet, MesaNetConfig
from .min_gru import MinGRU, MinGRUConfig
from .mlp import GeluMLP, GeluMLPConfig, SwiGLU, SwiGLUConfig
from .rg_lru import RGLRU, RGLRUConfig
from .s4d import S4D, S4DConfig
from .s5 import S5, S5Config
from .table import CHANNEL_MIXERS, MIXERS
from .ttt_linear import TTTLinear, TTTLinearConfig

__all__ = [
    "CHANNEL_MIXERS",
    "GLA",
    "H3",
    "LRU",
    "MIXERS",
    "RGLRU",
    "S4D",
    "S5",
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
    "H3Config",
    "Hyena",
    "HyenaConfig",
    "LRUConfig",
    "Longhorn",
    "LonghornConfig",
    "Mamba",
    "Mamba2",
    "Mamba2Config",
    "Mamba3",
    "Mamba3Config",
    "MambaConfig",
    "MesaNet",
    "MesaNetConfig",
    "MinGRU",
    "MinGRUConfig",
    "Mixer",
    "MixerConfig",
    "RGLRUConfig",
    "S4DConfig",
    "S5Config",
    "SwiGLU",
    "SwiGLUConfig",
    "TTTLinear",
    "TTTLinearConfig",
]
