"""RWKV-7, Goose: time mixing and channel mixing in turn, each a block here (Peng et al. 2025, arXiv 2503.14456).

Sizes are those of the World models, as in github.com/BlinkDL/RWKV-LM: heads of 64, layer norms, untied embeddings, the
65,536 tokens of RWKV's tokenizer. The released models also norm the embedding, and their first layer has no value
residual. Initial values depend on the layer's number among those of the paper, of which each is two blocks here.
"""

from ..layers import RWKV7ChannelConfig, RWKV7Config
from .arch import BYTES, Arch
from .config import LMConfig


def _goose(vocab: int, dim: int, layers: int, mixer: RWKV7Config) -> LMConfig:
    pattern = (mixer, RWKV7ChannelConfig())
    return LMConfig(vocab=vocab, dim=dim, depth=2 * layers, pattern=pattern, norm="layer", tied=False)


def _wide(gate_rank: int) -> RWKV7Config:
    return RWKV7Config(decay_rank=96, rate_rank=96, value_rank=64, gate_rank=gate_rank)


rwkv7 = Arch(
    name="rwkv7",
    paper='Peng et al. (2025), RWKV-7 "Goose", arXiv 2503.14456',
    sizes={
        "tiny": _goose(
            BYTES,
            dim=128,
            layers=4,
            mixer=RWKV7Config(head_dim=32, decay_rank=16, rate_rank=16, value_rank=8, gate_rank=32),
        ),
        "0.1b": _goose(65_536, dim=768, layers=12, mixer=RWKV7Config()),
        "0.4b": _goose(65_536, dim=1024, layers=24, mixer=RWKV7Config()),
        "1.5b": _goose(65_536, dim=2048, layers=24, mixer=_wide(256)),
        "2.9b": _goose(65_536, dim=2560, layers=32, mixer=_wide(320)),
    },
    # The tensors of the official code at these sizes, 2 V D + 4 D + L D (12 D + 2 r + 19) - 2 D s - D for low-rank maps
    # of rank r in all, s of it that of the value residual; the paper's abstract rounds them to 0.19 and 2.9 billion.
    # Ours have 2 D s + D more, the first layer's value residual, and 2 D fewer, the norm of the embedding.
    published={"0.1b": 191_034_624, "0.4b": 450_767_872, "1.5b": 1_527_404_544, "2.9b": 2_947_735_040},
)
