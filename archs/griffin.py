"""Griffin: two recurrent blocks to one of local attention, with gated GELU (De et al. 2024, arXiv 2402.19427).

Sizes are RecurrentGemma's (Botev et al. 2024, arXiv 2404.07839), as in github.com/google-deepmind/recurrentgemma: a
recurrence as wide as the model, a window of 2,048, one key head of which half turns, a bias on the attention's output,
embeddings tied and scaled by sqrt(dim), logits capped at 30, the 256,000 tokens of Gemma.
"""

from ..layers import AttentionConfig, GeluMLPConfig, RGLRUConfig
from .arch import BYTES, Arch
from .config import LMConfig


def _griffin(vocab: int, dim: int, depth: int, attention: AttentionConfig) -> LMConfig:
    recurrent = RGLRUConfig(head_dim=attention.head_dim)
    return LMConfig(
        vocab=vocab,
        dim=dim,
        depth=depth,
        pattern=(recurrent, recurrent, attention),
        mlp=GeluMLPConfig(gated=True, bias=True),
        embed_std=dim**-0.5,
        scale_embedding=True,
        soft_cap=30.0,
    )


_RECURRENT_GEMMA = AttentionConfig(head_dim=256, kv_heads=1, window=2048, rope_dim=128, out_bias=True)

griffin = Arch(
    name="griffin",
    paper="De et al. (2024), Griffin, arXiv 2402.19427; sizes of RecurrentGemma, arXiv 2404.07839",
    sizes={
        "tiny": _griffin(BYTES, 128, 5, AttentionConfig(head_dim=32, kv_heads=1, window=128)),
        "2b": _griffin(256_000, 2560, 26, _RECURRENT_GEMMA),
        "9b": _griffin(256_000, 4096, 38, _RECURRENT_GEMMA),
    },
    # 2b: the tensors of google/recurrentgemma-2b, equal to the last digit. 9b has 8,579,977,216 here; "9B" is too
    # coarse to hold it to 1%, and its tensor count was not found (about 19.3 GB of bfloat16 fits ours with the tied
    # embedding stored twice).
    published={"2b": 2_682_862_080},
)
