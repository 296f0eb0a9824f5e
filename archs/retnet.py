"""RetNet: multi-scale retention and a GELU channel mixer of twice the model width (Sun et al. 2023, arXiv 2307.08621).

Sizes are the paper's: heads of 256 key channels, values and channel mixer twice as wide as the model, the vocabulary of
tiktoken's cl100k_base.
"""

from ..layers import GeluMLPConfig, RetNetConfig
from .arch import BYTES, Arch
from .config import LMConfig


def _retnet(vocab: int, dim: int, depth: int, head_dim: int = 256) -> LMConfig:
    mixer, mlp = RetNetConfig(head_dim=head_dim), GeluMLPConfig(2 * dim)
    return LMConfig(vocab=vocab, dim=dim, depth=depth, pattern=(mixer,), mlp=mlp, norm="layer")


# No exact counts were published. Without embeddings there are 1.21, 2.52 and 6.44 billion here, with them 1.41, 2.77
# and 6.85: the names are too coarse to hold either to 1%.
retnet = Arch(
    name="retnet",
    paper="Sun et al. (2023), Retentive Network, arXiv 2307.08621",
    sizes={
        "tiny": _retnet(BYTES, dim=128, depth=5, head_dim=32),
        "1.3b": _retnet(100_277, dim=2048, depth=24),
        "2.7b": _retnet(100_277, dim=2560, depth=32),
        "6.7b": _retnet(100_277, dim=4096, depth=32),
    },
)
