"""Sequence layers: token mixers and channel mixers, as Flax NNX modules, each with its config."""

from .attention import Attention, AttentionConfig
from .base import ChannelMixerConfig, Mixer, MixerConfig
from .deltanet import DeltaNet, DeltaNetConfig
from .feed_forward import FeedForward, FeedForwardConfig
from .gated_deltanet import GatedDeltaNet, GatedDeltaNetConfig
from .gla import GLA, GLAConfig
from .gru import GRU, GRUConfig
from .hgrn import HGRN, HGRNConfig
from .lstm import LSTM, LSTMConfig
from .mamba2 import Mamba2, Mamba2Config
from .min_gru import MinGRU, MinGRUConfig
from .min_lstm import MinLSTM, MinLSTMConfig
from .mlp import GeluMLP, GeluMLPConfig, SwiGLU, SwiGLUConfig
from .mlstm import MLSTM, MLSTMConfig
from .mlstm_large import MLSTMLarge, MLSTMLargeConfig
from .qrnn import QRNN, QRNNConfig
from .rg_lru import RGLRU, RGLRUConfig
from .slstm import SLSTM, SLSTMConfig
from .table import CHANNEL_MIXERS, MIXERS

__all__ = [
    "CHANNEL_MIXERS",
    "GLA",
    "GRU",
    "HGRN",
    "LSTM",
    "MIXERS",
    "MLSTM",
    "QRNN",
    "RGLRU",
    "SLSTM",
    "Attention",
    "AttentionConfig",
    "ChannelMixerConfig",
    "DeltaNet",
    "DeltaNetConfig",
    "FeedForward",
    "FeedForwardConfig",
    "GLAConfig",
    "GRUConfig",
    "GatedDeltaNet",
    "GatedDeltaNetConfig",
    "GeluMLP",
    "GeluMLPConfig",
    "HGRNConfig",
    "LSTMConfig",
    "MLSTMConfig",
    "MLSTMLarge",
    "MLSTMLargeConfig",
    "Mamba2",
    "Mamba2Config",
    "MinGRU",
    "MinGRUConfig",
    "MinLSTM",
    "MinLSTMConfig",
    "Mixer",
    "MixerConfig",
    "QRNNConfig",
    "RGLRUConfig",
    "SLSTMConfig",
    "SwiGLU",
    "SwiGLUConfig",
]
