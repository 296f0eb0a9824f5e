"""Sequence layers: token mixers and channel mixers, as Flax NNX modules, each with its config."""

from .attention import Attention, AttentionConfig
from .base import ChannelMixerConfig, Mixer, MixerConfig
from .comba import Comba, CombaConfig
from .delta_product import DeltaProduct, DeltaProductConfig
from .deltanet import DeltaNet, DeltaNetConfig
from .gated_deltanet import GatedDeltaNet, GatedDeltaNetConfig
from .gated_deltanet2 import GatedDeltaNet2, GatedDeltaNet2Config
from .gla import GLA, GLAConfig
from .kda import KDA, KDAConfig
from .mamba2 import Mamba2, Mamba2Config
from .min_gru import MinGRU, MinGRUConfig
from .mlp import GeluMLP, GeluMLPConfig, SwiGLU, SwiGLUConfig
from .rg_lru import RGLRU, RGLRUConfig
from .rwkv7 import RWKV7, RWKV7Config
from .rwkv7_channel import RWKV7Channel, RWKV7ChannelConfig
from .table import CHANNEL_MIXERS, MIXERS

__all__ = [
    "CHANNEL_MIXERS",
    "GLA",
    "KDA",
    "MIXERS",
    "RGLRU",
    "RWKV7",
    "Attention",
    "AttentionConfig",
    "ChannelMixerConfig",
    "Comba",
    "CombaConfig",
    "DeltaNet",
    "DeltaNetConfig",
    "DeltaProduct",
    "DeltaProductConfig",
    "GLAConfig",
    "GatedDeltaNet",
    "GatedDeltaNet2",
    "GatedDeltaNet2Config",
    "GatedDeltaNetConfig",
    "GeluMLP",
    "GeluMLPConfig",
    "KDAConfig",
    "Mamba2",
    "Mamba2Config",
    "MinGRU",
    "MinGRUConfig",
    "Mixer",
    "MixerConfig",
    "RGLRUConfig",
    "RWKV7Channel",
    "RWKV7ChannelConfig",
    "RWKV7Config",
    "SwiGLU",
    "SwiGLUConfig",
]
