"""Reformer: attention within hashed buckets, on coupled streams (Kitaev, Kaiser & Levskaya 2020, arXiv 2001.04451).

``enwik8`` has the width, depth and heads of the paper's ablations (its section 5: 1024, 3 layers, 8 heads, channel
mixers of 4096), whose parameters are not counted there. As in its code, the head reads both streams, side by side.
"""

from ..layers import GeluMLPConfig, ReformerConfig
from .arch import BYTES, Arch
from .config import LMConfig


def _reformer(dim: int, depth: int, mixer: ReformerConfig) -> LMConfig:
    trunk = {"norm": "layer", "residual": "reversible", "tied": False}
    return LMConfig(BYTES, dim=dim, depth=depth, pattern=(mixer,), mlp=GeluMLPConfig(bias=True), **trunk)


reformer = Arch(
    name="reformer",
    paper="Kitaev, Kaiser & Levskaya (2020), Reformer, arXiv 2001.04451",
    sizes={
        "tiny": _reformer(128, 5, ReformerConfig(head_dim=32, buckets=8, rounds=2, chunk=16)),
        "enwik8": _reformer(1024, 3, ReformerConfig(head_dim=128)),
    },
)
