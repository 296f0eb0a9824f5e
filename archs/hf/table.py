"""The families of checkpoints that load, by the ``model_type`` of their ``config.json``."""

from .convert import Family
from .falcon_h1 import FALCON_H1
from .granite import GRANITE_HYBRID
from .griffin import RECURRENT_GEMMA
from .kimi_linear import KIMI_LINEAR
from .llama import LLAMA, QWEN2, QWEN3, SMOLLM3
from .mamba import FALCON_MAMBA, JAMBA, MAMBA_ALONE
from .mamba2 import BAMBA, MAMBA2_ALONE
from .minimax import MINIMAX
from .olmo_hybrid import OLMO_HYBRID
from .qwen3_next import QWEN3_5, QWEN3_NEXT
from .rwkv4 import RWKV4
from .xlstm import XLSTM
from .zamba import ZAMBA

FAMILIES: dict[str, Family] = {
    "bamba": BAMBA,
    "falcon_h1": FALCON_H1,
    "falcon_mamba": FALCON_MAMBA,
    "granitemoehybrid": GRANITE_HYBRID,
    "jamba": JAMBA,
    "kimi_linear": KIMI_LINEAR,
    "llama": LLAMA,
    "mamba": MAMBA_ALONE,
    "mamba2": MAMBA2_ALONE,
    "minimax": MINIMAX,
    "olmo_hybrid": OLMO_HYBRID,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "qwen3_5": QWEN3_5,
    "qwen3_5_text": QWEN3_5,
    "qwen3_next": QWEN3_NEXT,
    "recurrent_gemma": RECURRENT_GEMMA,
    "rwkv": RWKV4,
    "smollm3": SMOLLM3,
    "xlstm": XLSTM,
    "zamba": ZAMBA,
}
