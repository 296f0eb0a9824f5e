"""H3: blocks of the H3 mixer with one to three of attention among them (Fu et al. 2022, arXiv 2212.14052).

Sizes are those released in github.com/HazyResearch/H3, with the positions of attention that its examples give. The
released attention has biases, and no positions (the 2.7B of two attention layers rotates half of each head).
"""

from ..layers import AttentionConfig, GeluMLPConfig, H3Config
from ..layers.base import MixerConfig
from .arch import BYTES, Arch
from .config import LMConfig


def _h3(vocab: int, dim: int, depth: int, attention: tuple[int, ...], head_dim: int, mixer: H3Config) -> LMConfig:
    pattern: list[MixerConfig] = [mixer] * depth
    for layer in attention:
        pattern[layer] = AttentionConfig(head_dim=head_dim)
    return LMConfig(vocab, dim, depth, pattern=tuple(pattern), mlp=GeluMLPConfig(bias=True), norm="layer")


def _pile(dim: int, depth: int, attention: tuple[int, ...], heads: int, head_dim: int = 1) -> LMConfig:
    return _h3(50_264, dim, depth, attention, dim // heads, H3Config(head_dim=head_dim))


h3 = Arch(
    name="h3",
    paper="Fu, Dao, Saab, Thomas, Rudra & Re (2022), Hungry Hungry Hippos, arXiv 2212.14052",
    sizes={
        "tiny": _h3(BYTES, 128, 5, (2,), 32, H3Config(state_dim=32, short_conv=32)),
        "125m": _pile(768, 12, (6,), 12),
        "355m": _pile(1024, 24, (8, 16), 16),
    },
    # 125m: what the official script prints for the released checkpoint. Ours are 1,092,864 fewer: what writes into the
    # shift and into the diagonal models, which what reads can absorb (1,081,344), the skip of the shift, and the biases
    # of attention. 355m: the name is too coarse to hold a count to 1%.
    published={"125m": 126_387_456},
)
