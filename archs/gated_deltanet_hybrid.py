"""A hybrid: three Gated DeltaNet blocks to one of attention, with SwiGLU.

The ratio is that of Qwen3-Next and OLMo Hybrid, and within what Wang et al. (2025), A Systematic Analysis of Hybrid
Linear Attention, arXiv 2507.06457, recommend. The published size is OLMo Hybrid 7B (Ai2, 2026), whose counts these are;
it differs from the settings here in what does not move the count: it normalises after attention and its channel mixer
rather than before, its query and key norms span all heads, and its long-context release drops rotary positions.
"""

from ..layers import AttentionConfig, GatedDeltaNetConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

_OLMO = GatedDeltaNetConfig(head_dim=96, heads=30, negative_eigenvalues=True)

gated_deltanet_hybrid = Arch(
    name="gated_deltanet_hybrid",
    paper="Yang, Kautz & Hatamizadeh (2024), Gated Delta Networks, arXiv 2412.06464; size of OLMo Hybrid, Ai2 (2026)",
    sizes={
        "tiny": LMConfig(
            BYTES,
            dim=128,
            depth=4,
            pattern=(GatedDeltaNetConfig(head_dim=32),) * 3 + (AttentionConfig(head_dim=32),),
            mlp=SwiGLUConfig(),
        ),
        "7b": LMConfig(
            100_352,
            dim=3840,
            depth=32,
            pattern=(_OLMO,) * 3 + (AttentionConfig(head_dim=128, qk_norm=True),),
            mlp=SwiGLUConfig(11_008),
            tied=False,
        ),
    },
    # The tensors of allenai/Olmo-Hybrid-7B: ours are 59,392 fewer, the wider query and key norms of 8 layers.
    published={"7b": 7_430_870_688},
)
