"""The table of layers: a line here earns a layer the laws of ``tests/test_laws.py`` and a row of ``subquad list``."""

from .attention import AttentionConfig
from .base import ChannelMixerConfig, MixerConfig
from .base_conv import BaseConvConfig
from .bigbird import BigBirdConfig
from .comba import CombaConfig
from .delta_product import DeltaProductConfig
from .deltanet import DeltaNetConfig
from .dsa import DSAConfig
from .feed_forward import FeedForwardConfig
from .gated_deltanet import GatedDeltaNetConfig
from .gated_deltanet2 import GatedDeltaNet2Config
from .gla import GLAConfig
from .gru import GRUConfig
from .gsa import GSAConfig
from .h3 import H3Config
from .hgrn import HGRNConfig
from .hgrn2 import HGRN2Config
from .hyena import HyenaConfig
from .kda import KDAConfig
from .lightning import LightningConfig
from .linear_attention import LinearAttentionConfig
from .longformer import LongformerConfig
from .longhorn import LonghornConfig
from .lru import LRUConfig
from .lstm import LSTMConfig
from .mamba import MambaConfig
from .mamba2 import Mamba2Config
from .mamba3 import Mamba3Config
from .mesa_net import MesaNetConfig
from .min_gru import MinGRUConfig
from .min_lstm import MinLSTMConfig
from .mlgru import MLGRUConfig
from .mlp import GeluMLPConfig, SwiGLUConfig
from .mlstm import MLSTMConfig
from .mlstm_large import MLSTMLargeConfig
from .moba import MoBAConfig
from .nsa import NSAConfig
from .parallel import ParallelConfig
from .qrnn import QRNNConfig
from .reformer import ReformerConfig
from .retnet import RetNetConfig
from .rg_lru import RGLRUConfig
from .rwkv4 import RWKV4Config
from .rwkv6 import RWKV6Config
from .rwkv6_channel import RWKV6ChannelConfig
from .rwkv7 import RWKV7Config
from .rwkv7_channel import RWKV7ChannelConfig
from .s4d import S4DConfig
from .s5 import S5Config
from .slstm import SLSTMConfig
from .ttt_linear import TTTLinearConfig
from .zamba import ZambaConfig

MIXERS: dict[str, type[MixerConfig]] = {
    "attention": AttentionConfig,
    "base_conv": BaseConvConfig,
    "bigbird": BigBirdConfig,
    "comba": CombaConfig,
    "delta_product": DeltaProductConfig,
    "deltanet": DeltaNetConfig,
    "dsa": DSAConfig,
    "feed_forward": FeedForwardConfig,
    "gated_deltanet": GatedDeltaNetConfig,
    "gated_deltanet2": GatedDeltaNet2Config,
    "gla": GLAConfig,
    "gru": GRUConfig,
    "gsa": GSAConfig,
    "h3": H3Config,
    "hgrn": HGRNConfig,
    "hgrn2": HGRN2Config,
    "hyena": HyenaConfig,
    "kda": KDAConfig,
    "lightning": LightningConfig,
    "linear_attention": LinearAttentionConfig,
    "longformer": LongformerConfig,
    "longhorn": LonghornConfig,
    "lru": LRUConfig,
    "lstm": LSTMConfig,
    "mamba": MambaConfig,
    "mamba2": Mamba2Config,
    "mamba3": Mamba3Config,
    "mesa_net": MesaNetConfig,
    "min_gru": MinGRUConfig,
    "min_lstm": MinLSTMConfig,
    "mlgru": MLGRUConfig,
    "mlstm": MLSTMConfig,
    "mlstm_large": MLSTMLargeConfig,
    "moba": MoBAConfig,
    "nsa": NSAConfig,
    "parallel": ParallelConfig,
    "qrnn": QRNNConfig,
    "reformer": ReformerConfig,
    "retnet": RetNetConfig,
    "rg_lru": RGLRUConfig,
    "rwkv4": RWKV4Config,
    "rwkv6": RWKV6Config,
    "rwkv6_channel": RWKV6ChannelConfig,
    "rwkv7": RWKV7Config,
    "rwkv7_channel": RWKV7ChannelConfig,
    "s4d": S4DConfig,
    "s5": S5Config,
    "slstm": SLSTMConfig,
    "ttt_linear": TTTLinearConfig,
    "zamba": ZambaConfig,
}

CHANNEL_MIXERS: dict[str, type[ChannelMixerConfig]] = {
    "gelu_mlp": GeluMLPConfig,
    "swiglu": SwiGLUConfig,
}

GROWING = frozenset({"attention", "bigbird", "dsa", "hyena", "moba", "nsa", "parallel", "reformer", "zamba"})
"""Mixers whose state grows with the sequence (Hyena's up to its filters' length); what the others keep is constant."""
