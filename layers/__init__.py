"""Sequence layers: token mixers and channel mixers, as Flax NNX modules, each with its config."""

from .attention import Attention, AttentionConfig
from .base import ChannelMixerConfig, Mixer, MixerConfig
from .deltanet import DeltaNet, DeltaNetConfig
from .feed_forward import FeedForward, FeedForwardConfig
from .gated_deltanet import GatedDeltaNet, GatedDeltaNetConfig
from .gla import GLA, GLAConfig
from .gru import GRU, GRUConfig
from .h3 import H3, H3Config
from .hgrn import HGRN, HGRNConfig
from .hyena import Hyena, HyenaConfig
from .longhorn import Longhorn, LonghornConfig
from .lru import LRU, LRUConfig
from .lstm import LSTM, LSTMConfig
from .mamba import Mamba, MambaConfig
from .mamba2 import Mamba2, Mamba2Config
from .mamba3 import Mamba3, Mamba3Config
from .mesa_net import MesaNet, MesaNetConfig
from .min_gru import MinGRU, MinGRUConfig
from .min_lstm import MinLSTM, MinLSTMConfig
from .mlp import GeluMLP, GeluMLPConfig, SwiGLU, SwiGLUConfig
from .mlstm import MLSTM, MLSTMConfig
from .mlstm_large import MLSTMLarge, MLSTMLargeConfig
from .qrnn import QRNN, QRNNConfig
from .rg_lru import RGLRU, RGLRUConfig
from .s4d import S4D, S4DConfig
from .s5 import S5, S5Config
from .slstm import SLSTM, SLSTMConfig
from .table import CHANNEL_MIXERS, MIXERS
from .ttt_linear import TTTLinear, TTTLinearConfig

__all__ = [
    "CHANNEL_MIXERS",
    "GLA",
    "GRU",
    "H3",
    "HGRN",
    "LRU",
    "LSTM",
    "MIXERS",
    "MLSTM",
    "QRNN",
    "RGLRU",
    "S4D",
    "S5",
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
    "H3Config",
    "HGRNConfig",
    "Hyena",
    "HyenaConfig",
    "LRUConfig",
    "LSTMConfig",
    "Longhorn",
    "LonghornConfig",
    "MLSTMConfig",
    "MLSTMLarge",
    "MLSTMLargeConfig",
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
    "MinLSTM",
    "MinLSTMConfig",
    "Mixer",
    "MixerConfig",
    "QRNNConfig",
    "RGLRUConfig",
    "S4DConfig",
    "S5Config",
    "SLSTMConfig",
    "SwiGLU",
    "SwiGLUConfig",
    "TTTLinear",
    "TTTLinearConfig",
]
