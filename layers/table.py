"""The table of layers: a line here earns a layer the laws of ``tests/test_laws.py`` and a row of ``subquad list``."""

from .attention import AttentionConfig
from .base import ChannelMixerConfig, MixerConfig
from .deltanet import DeltaNetConfig
from .feed_forward import FeedForwardConfig
from .gated_deltanet import GatedDeltaNetConfig
from .gla import GLAConfig
from .gru import GRUConfig
from .hgrn import HGRNConfig
from .lstm import LSTMConfig
from .mamba2 import Mamba2Config
from .min_gru import MinGRUConfig
from .min_lstm import MinLSTMConfig
from .mlp import GeluMLPConfig, SwiGLUConfig
from .mlstm import MLSTMConfig
from .mlstm_large import MLSTMLargeConfig
from .qrnn import QRNNConfig
from .rg_lru import RGLRUConfig
from .slstm import SLSTMConfig

MIXERS: dict[str, type[MixerConfig]] = {
    "attention": AttentionConfig,
    "deltanet": DeltaNetConfig,
    "feed_forward": FeedForwardConfig,
    "gated_deltanet": GatedDeltaNetConfig,
    "gla": GLAConfig,
    "gru": GRUConfig,
    "hgrn": HGRNConfig,
    "lstm": LSTMConfig,
    "mamba2": Mamba2Config,
    "min_gru": MinGRUConfig,
    "min_lstm": MinLSTMConfig,
    "mlstm": MLSTMConfig,
    "mlstm_large": MLSTMLargeConfig,
    "qrnn": QRNNConfig,
    "rg_lru": RGLRUConfig,
    "slstm": SLSTMConfig,
}

CHANNEL_MIXERS: dict[str, type[ChannelMixerConfig]] = {
    "gelu_mlp": GeluMLPConfig,
    "swiglu": SwiGLUConfig,
}

GROWING = frozenset({"attention"})
"""Mixers whose state grows with the sequence; what the others keep is constant."""
