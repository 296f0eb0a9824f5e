"""Sequence layers: token mixers and channel mixers, as Flax NNX modules, each with its config."""

from .attention import Attention, AttentionConfig
from .base import ChannelMixerConfig, Mixer, MixerConfig
from .base_conv import BaseConv, BaseConvConfig
from .bigbird import BigBird, BigBirdConfig
from .comba import Comba, CombaConfig
from .delta_product import DeltaProduct, DeltaProductConfig
from .deltanet import DeltaNet, DeltaNetConfig
from .dsa import DSA, DSAConfig
from .feed_forward import FeedForward, FeedForwardConfig
from .gated_deltanet import GatedDeltaNet, GatedDeltaNetConfig
from .gated_deltanet2 import GatedDeltaNet2, GatedDeltaNet2Config
from .gla import GLA, GLAConfig
from .gru import GRU, GRUConfig
from .gsa import GSA, GSAConfig
from .h3 import H3, H3Config
from .hgrn import HGRN, HGRNConfig
from .hgrn2 import HGRN2, HGRN2Config
from .hyena import Hyena, HyenaConfig
from .kda import KDA, KDAConfig
from .lightning import Lightning, LightningConfig
from .linear_attention import LinearAttention, LinearAttentionConfig
from .longformer import Longformer, LongformerConfig
from .longhorn import Longhorn, LonghornConfig
from .lru import LRU, LRUConfig
from .lstm import LSTM, LSTMConfig
from .mamba import Mamba, MambaConfig
from .mamba2 import Mamba2, Mamba2Config
from .mamba3 import Mamba3, Mamba3Config
from .mesa_net import MesaNet, MesaNetConfig
from .min_gru import MinGRU, MinGRUConfig
from .min_lstm import MinLSTM, MinLSTMConfig
from .mlgru import MLGRU, MLGRUConfig
from .mlp import GeluMLP, GeluMLPConfig, SwiGLU, SwiGLUConfig
from .mlstm import MLSTM, MLSTMConfig
from .mlstm_large import MLSTMLarge, MLSTMLargeConfig
from .moba import MoBA, MoBAConfig
from .nsa import NSA, NSAConfig
from .parallel import Parallel, ParallelConfig
from .qrnn import QRNN, QRNNConfig
from .reformer import Reformer, ReformerConfig
from .retnet import RetNet, RetNetConfig
from .rg_lru import RGLRU, RGLRUConfig
from .rwkv4 import RWKV4, RWKV4Config
from .rwkv6 import RWKV6, RWKV6Config
from .rwkv6_channel import RWKV6Channel, RWKV6ChannelConfig
from .rwkv7 import RWKV7, RWKV7Config
from .rwkv7_channel import RWKV7Channel, RWKV7ChannelConfig
from .s4d import S4D, S4DConfig
from .s5 import S5, S5Config
from .slstm import SLSTM, SLSTMConfig
from .table import CHANNEL_MIXERS, MIXERS
from .ternary import BitLinear, to_ternary
from .ttt_linear import TTTLinear, TTTLinearConfig
from .zamba import Zamba, ZambaConfig

__all__ = [
    "CHANNEL_MIXERS",
    "DSA",
    "GLA",
    "GRU",
    "GSA",
    "H3",
    "HGRN",
    "HGRN2",
    "KDA",
    "LRU",
    "LSTM",
    "MIXERS",
    "MLGRU",
    "MLSTM",
    "NSA",
    "QRNN",
    "RGLRU",
    "RWKV4",
    "RWKV6",
    "RWKV7",
    "S4D",
    "S5",
    "SLSTM",
    "Attention",
    "AttentionConfig",
    "BaseConv",
    "BaseConvConfig",
    "BigBird",
    "BigBirdConfig",
    "BitLinear",
    "ChannelMixerConfig",
    "Comba",
    "CombaConfig",
    "DSAConfig",
    "DeltaNet",
    "DeltaNetConfig",
    "DeltaProduct",
    "DeltaProductConfig",
    "FeedForward",
    "FeedForwardConfig",
    "GLAConfig",
    "GRUConfig",
    "GSAConfig",
    "GatedDeltaNet",
    "GatedDeltaNet2",
    "GatedDeltaNet2Config",
    "GatedDeltaNetConfig",
    "GeluMLP",
    "GeluMLPConfig",
    "H3Config",
    "HGRN2Config",
    "HGRNConfig",
    "Hyena",
    "HyenaConfig",
    "KDAConfig",
    "LRUConfig",
    "LSTMConfig",
    "Lightning",
    "LightningConfig",
    "LinearAttention",
    "LinearAttentionConfig",
    "Longformer",
    "LongformerConfig",
    "Longhorn",
    "LonghornConfig",
    "MLGRUConfig",
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
    "MoBA",
    "MoBAConfig",
    "NSAConfig",
    "Parallel",
    "ParallelConfig",
    "QRNNConfig",
    "RGLRUConfig",
    "RWKV4Config",
    "RWKV6Channel",
    "RWKV6ChannelConfig",
    "RWKV6Config",
    "RWKV7Channel",
    "RWKV7ChannelConfig",
    "RWKV7Config",
    "Reformer",
    "ReformerConfig",
    "RetNet",
    "RetNetConfig",
    "S4DConfig",
    "S5Config",
    "SLSTMConfig",
    "SwiGLU",
    "SwiGLUConfig",
    "TTTLinear",
    "TTTLinearConfig",
    "Zamba",
    "ZambaConfig",
    "to_ternary",
]
