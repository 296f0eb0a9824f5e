"""Longformer as a language model: sliding windows, some heads dilated, and a global token (Beltagy et al. 2020).

The published checkpoints are encoders, and the character models of the paper have relative positions with weights of
their own and another window in each layer and phase of training: neither is a size here.
"""

from ..layers import LongformerConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

longformer = Arch(
    name="longformer",
    paper="Beltagy, Peters & Cohan (2020), Longformer, arXiv 2004.05150",
    sizes={
        "tiny": LMConfig(
            BYTES,
            dim=128,
            depth=5,
            pattern=(LongformerConfig(head_dim=32, window=64, dilated_heads=2),),
            mlp=SwiGLUConfig(),
        ),
    },
)
