"""RWKV-6, Finch: time mixing and channel mixing in turn, each a block here (Peng et al. 2024, arXiv 2404.05892).

Sizes are those released, as in github.com/BlinkDL/RWKV-LM: heads of 64, layer norms, untied embeddings, the 65,536
tokens of RWKV's World tokenizer, and wider low-rank maps at 7B. The released models also norm the embedding, 2 D
parameters more; and they count layers, of which each is two blocks here, for the initial values.
"""

from ..layers import RWKV6ChannelConfig, RWKV6Config
from .arch import BYTES, Arch
from .config import LMConfig


def _finch(vocab: int, dim: int, layers: int, mixer: RWKV6Config) -> LMConfig:
    pattern = (mixer, RWKV6ChannelConfig())
    return LMConfig(vocab=vocab, dim=dim, depth=2 * layers, pattern=pattern, norm="layer", tied=False)


rwkv6 = Arch(
    name="rwkv6",
    paper="Peng et al. (2024), Eagle and Finch, arXiv 2404.05892",
    sizes={
        "tiny": _finch(BYTES, dim=128, layers=4, mixer=RWKV6Config(head_dim=32, mix_rank=8, decay_rank=16)),
        "1.6b": _finch(65_536, dim=2048, layers=24, mixer=RWKV6Config()),
        "3b": _finch(65_536, dim=2560, layers=32, mixer=RWKV6Config()),
        "7b": _finch(65_536, dim=4096, layers=32, mixer=RWKV6Config(mix_rank=64, decay_rank=128)),
    },
    # 1.6b and 3b: the paper's figures, which are rounded. 7b: the file of RWKV/v6-Finch-7B-HF, 15.3 GB of bfloat16.
    published={"1.6b": 1_600_000_000, "3b": 3_100_000_000, "7b": 7_650_000_000},
)
