"""Recurrences, one per folder: definition, chunk-parallel XLA, and kernels.

Every op is a plain function on arrays, with one contract:

- it returns ``(y, state)``, always (``sparse_attention``, which has no state, returns y);
- any ``T >= 1``, grouped heads, ``initial_state``, ``segment_ids``, float32 or bfloat16 inputs (float64 under
  ``jax.enable_x64``), and reverse-mode gradients for every array argument and from the final state;
- the state and all accumulation are float32 (float64 only when the inputs are); ``y`` has ``v``'s dtype.

Glossary (names in signatures and einsums):

======  ==============================================================================================
``B``   batch
``T``   time, always axis 1
``H``   heads (value heads)
``Hk``  key heads; ``H`` is a multiple of ``Hk``, and value head ``j`` reads key head ``j // (H / Hk)``
``K``   key width
``V``   value width
``D``   channels
``N``   state size per channel
``C``   chunk length
``W``   window or filter width
======  ==============================================================================================

Gates are natural-log decays, ``g <= 0``. A matrix state is ``[B, H, K, V]``.

``segment_ids`` ``[B, T]`` packs documents: the state resets where the id changes, ``initial_state`` belongs to the
first segment and the returned state to the last. A negative id is padding: the state holds and ``y = 0`` there.

``impl`` is ``"auto"`` or the name of an implementation; ``explain`` says which one auto takes, and why not the others.
"""

from .delta_rule import delta_rule
from .diagonal_ssm import diagonal_ssm
from .dispatch import explain
from .dplr import dplr
from .gla import gla
from .gpu import interpret_gpu
from .linear_scan import linear_scan
from .log_linear import log_linear
from .long_conv import long_conv
from .longhorn import longhorn
from .mlstm import mlstm
from .selective_scan import selective_scan
from .sharding import sharding
from .short_conv import short_conv
from .slstm import slstm
from .sparse_attention import BigBird, Blocks, Dilated, Strided, Window, sparse_attention
from .tpu import simulate_tpu
from .ttt_linear import ttt_linear

__all__ = [
    "BigBird",
    "Blocks",
    "Dilated",
    "Strided",
    "Window",
    "delta_rule",
    "diagonal_ssm",
    "dplr",
    "explain",
    "gla",
    "interpret_gpu",
    "linear_scan",
    "log_linear",
    "long_conv",
    "longhorn",
    "mlstm",
    "selective_scan",
    "sharding",
    "short_conv",
    "simulate_tpu",
    "slstm",
    "sparse_attention",
    "ttt_linear",
]
