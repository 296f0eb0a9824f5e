"""RWKV-4, Dove: time mixing and channel mixing in turn, each a block here (Peng et al. 2023, arXiv 2305.13048).

Sizes are those released, trained on the Pile with the tokenizer of GPT-NeoX: layer norms, untied embeddings. The
released models also norm the embedding, 2 D parameters more; and they count layers, of which each is two blocks here,
for the initial values.
"""

from ..layers import RWKV4Config, RWKV6ChannelConfig
from .arch import BYTES, Arch
from .config import LMConfig


def _dove(vocab: int, dim: int, layers: int) -> LMConfig:
    pattern = (RWKV4Config(), RWKV6ChannelConfig(hidden=4 * dim, steepness=1))
    return LMConfig(vocab=vocab, dim=dim, depth=2 * layers, pattern=pattern, norm="layer", norm_eps=1e-5, tied=False)


rwkv4 = Arch(
    name="rwkv4",
    paper="Peng et al. (2023), RWKV, arXiv 2305.13048",
    sizes={
        "tiny": _dove(BYTES, dim=128, layers=4),
        "169m": _dove(50_277, dim=768, layers=12),
        "430m": _dove(50_277, dim=1024, layers=24),
        "1.5b": _dove(50_277, dim=2048, layers=24),
        "3b": _dove(50_277, dim=2560, layers=32),
        "7b": _dove(50_277, dim=4096, layers=32),
        "14b": _dove(50_277, dim=5120, layers=40),
    },
    # The paper's table 2, which has four digits.
    published={
        "169m": 169_300_000,
        "430m": 430_400_000,
        "1.5b": 1_515_000_000,
        "3b": 2_985_000_000,
        "7b": 7_393_000_000,
        "14b": 14_150_000_000,
    },
)
