"""The delta rule on Hopper GPUs: what it erases and writes, for ``gpu.wy``.

A read before the decay takes a gate a head for one a channel: only their kernels have it.
"""

import jax.numpy as jnp

from .. import gpu
from ..gpu import wy
from ..heads import repeat_heads
from ..segments import segments
from .arguments import OUTPUTS, axes

__all__ = ["OUTPUTS", "axes", "run", "unsupported"]


def unsupported(q, k, v, **_) -> str | None:
    """What does not run here, in words."""
    return gpu.unsupported_heads(q, k, v)


def run(q, k, v, beta, g, *, erase_key, read, scale, initial_state, segment_ids):
    """See ``delta_rule``."""
    (B, T, H, _), low = v.shape, v.dtype
    undecayed = read == "undecayed" and g is not None
    e, w = beta if isinstance(beta, tuple) else (beta[..., None], beta[..., None])
    wide = lambda x: repeat_heads(x, H).astype(jnp.float32)  # noqa: E731
    a = (wide(e) * wide(k if erase_key is None else erase_key)).astype(low)
    v = (wide(w) * wide(v)).astype(low)
    g = jnp.zeros((B, T, H)) if g is None else repeat_heads(g, H)
    g = g.astype(jnp.float32)
    if undecayed and g.ndim == 3:
        g = jnp.broadcast_to(g[..., None], (B, T, H, q.shape[3]))
    if not isinstance(scale, float | int):
        q, scale = (q * jnp.asarray(scale, jnp.float32)).astype(low), 1.0
    number = None
    if segment_ids is not None:
        number, valid = segments(segment_ids)
        q, k, v, a, g = (jnp.where(valid.reshape(B, T, *[1] * (x.ndim - 2)), x, 0) for x in (q, k, v, a, g))
    return wy.run(q, k, v, a, g, float(scale), initial_state, number, undecayed=undecayed)
