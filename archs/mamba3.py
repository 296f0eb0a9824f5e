"""Mamba-3: Mamba-3 mixers and SwiGLU (Lahoti et al. 2026, arXiv 2603.15569).

No published settings of the paper's models (up to 1.5B) were found to check sizes against, so that there is only
``tiny``, of rank 1; ``subquad compare --archs mamba3+rank=4`` takes the paper's MIMO.
"""

from ..layers import Mamba3Config, SwiGLUConfig
from .arch import BYTES, Arch
from .config import LMConfig

mamba3 = Arch(
    name="mamba3",
    paper="Lahoti et al. (2026), Mamba-3, arXiv 2603.15569",
    sizes={
        "tiny": LMConfig(
            BYTES, dim=128, depth=4, pattern=(Mamba3Config(head_dim=32, state_dim=64),), mlp=SwiGLUConfig()
        ),
    },
)
