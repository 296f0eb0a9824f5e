"""Samba: Mamba and sliding-window attention in turn, each with SwiGLU (Ren et al. 2024, arXiv 2406.07522).

Sizes are those of github.com/microsoft/Samba, on SlimPajama with the 32,000 tokens of Llama 2. A window of 2,048 keeps
what decoding stores constant.
"""

from ..layers import AttentionConfig, MambaConfig, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig


def _samba(dim: int, depth: int, hidden: int) -> LMConfig:
    pattern = (MambaConfig(), AttentionConfig(head_dim=128, window=2048))
    return LMConfig(vocab=32_000, dim=dim, depth=depth, pattern=pattern, mlp=SwiGLUConfig(hidden))


samba = Arch(
    name="samba",
    paper="Ren, Liu, Lu, Shen, Liang & Chen (2024), Samba, arXiv 2406.07522",
    sizes={
        "tiny": LMConfig(
            BYTES,
            dim=128,
            depth=6,
            pattern=(MambaConfig(), AttentionConfig(head_dim=32, window=128)),
            mlp=SwiGLUConfig(192),
        ),
        "421m": _samba(1536, 12, 4096),
        "1.3b": _samba(2304, 18, 6144),
    },
    # 421m: the paper's figure, which is rounded. 1.3b has 1,330,207,488 here; "1.3B" is too coarse to hold it to 1%.
    published={"421m": 421_000_000},
)
