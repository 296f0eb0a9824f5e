"""Sequence layers: token mixers and channel mixers, as Flax NNX modules, each with its config."""

from .attention import Attention, AttentionConfig
from .base import ChannelMixerConfig, Mixer, MixerConfig
from .base_conv import BaseConv, BaseConvConfig
from .deltanet import DeltaNet, DeltaNetConfig
from .gated_deltanet import GatedDeltaNet, GatedDeltaNetConfig
from .gla import GLA, GLAConfig
from .gsa import GSA, GSAConfig
from .hgrn2 import HGRN2, HGRN2Config
from .lightning import Lightning, LightningConfig
from .linear_attention import LinearAttention, LinearAttentionConfig
from .mamba2 import Mamba2, Mamba2Config
from .min_gru import MinGRU, MinGRUConfig
from .mlp import GeluMLP, GeluMLPConfig, SwiGLU, SwiGLUConfig
from .retnet import RetNet, RetNetConfig
from .rg_lru import RGLRU, RGLRUConfig
from .rwkv6 import RWKV6, RWKV6Config
from .rwkv6_channel import RWKV6Channel, RWKV6ChannelConfig
from .table import CHANNEL_MIXERS, MIXERS

__all__ = [
    "CHANNEL_MIXERS",
    "GLA",
    "GSA",
    "HGRN2",
    "MIXERS",
    "RGLRU",
    "RWKV6",
    "Attention",
    "AttentionConfig",
    "BaseConv",
    "BaseConvConfig",
    "ChannelMixerConfig",
    "DeltaNet",
    "DeltaNetConfig",
    "GLAConfig",
    "GSAConfig",
    "GatedDeltaNet",
    "GatedDeltaNetConfig",
    "GeluMLP",
    "GeluMLPConfig",
    "HGRN2Config",
    "Lightning",
    "LightningConfig",
    "LinearAttention",
    "LinearAttentionConfig",
    "Mamba2",
    "Mamba2Config",
    "MinGRU",
    "MinGRUConfig",
    "Mixer",
    "MixerConfig",
    "RGLRUConfig",
    "RWKV6Channel",
    "RWKV6ChannelConfig",
    "RWKV6Config",
    "RetNet",
    "RetNetConfig",
    "SwiGLU",
    "SwiGLUConfig",
]
