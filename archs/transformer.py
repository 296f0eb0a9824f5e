"""The Transformer that the others are measured against: rotary attention, SwiGLU, RMS norms (the Llama recipe).

Sizes are SmolLM2's (Allal et al. 2025, arXiv 2502.02737), since its checkpoints are public and small: tied embeddings,
grouped queries below 1.7B, 49,152 tokens.
"""

from ..layers import AttentionConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig


def _smollm2(dim: int, depth: int, kv_heads: int, hidden: int, rope_base: float) -> LMConfig:
    mixer = AttentionConfig(head_dim=64, kv_heads=kv_heads, rope_base=rope_base)
    return LMConfig(vocab=49_152, dim=dim, depth=depth, pattern=(mixer,), mlp=SwiGLUConfig(hidden), norm_eps=1e-5)


transformer = Arch(
    name="transformer",
    paper="Touvron et al. (2023), LLaMA, arXiv 2302.13971; sizes of SmolLM2, arXiv 2502.02737",
    sizes={
        "tiny": LMConfig(BYTES, dim=128, depth=5, pattern=(AttentionConfig(head_dim=32),), mlp=SwiGLUConfig()),
        "135m": _smollm2(576, 30, kv_heads=3, hidden=1536, rope_base=100_000.0),
        "360m": _smollm2(960, 32, kv_heads=5, hidden=2560, rope_base=100_000.0),
        "1.7b": _smollm2(2048, 24, kv_heads=32, hidden=8192, rope_base=130_000.0),
    },
    # The tensors of the checkpoints HuggingFaceTB/SmolLM2-135M, -360M and -1.7B. Ours are equal to the last digit.
    published={"135m": 134_515_008, "360m": 361_821_120, "1.7b": 1_711_376_384},
)
