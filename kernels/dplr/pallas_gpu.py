"""dplr on Hopper GPUs: ``gpu.wy`` over twice as many tokens, of which each writes one vector.

The first of a pair decays the state and adds ``b_t (a_t^T S_{t-1})^T``; the second adds ``k_t v_t^T`` and is read by
q. So nothing is new but that a reads what is there before the decay.
"""

import jax
import jax.numpy as jnp

from .. import gpu
from ..gpu import wy
from ..heads import repeat_heads
from ..segments import segments
from .arguments import OUTPUTS, axes

__all__ = ["OUTPUTS", "axes", "run", "unsupported"]


def unsupported(q, k, v, a, b, **_) -> str | None:
    """What does not run here, in words."""
    if reason := gpu.unsupported_heads(q, k, v):
        return reason
    return None if {a.dtype.name, b.dtype.name} == {"bfloat16"} else "a and b must be bfloat16"


def run(q, k, v, a, b, g, *, scale, initial_state, segment_ids):
    """See ``dplr``."""
    H = v.shape[2]
    if not isinstance(scale, float | int):
        q, scale = (q * jnp.asarray(scale, jnp.float32)).astype(v.dtype), 1.0
    if k.shape[2] != b.shape[2]:
        k, b = repeat_heads(k, H), repeat_heads(b, H)
    a, g = repeat_heads(a, H), repeat_heads(g, H).astype(jnp.float32)
    number = None
    if segment_ids is not None:
        number, valid = segments(segment_ids)
        q, k, v, a, b, g = (jnp.where(valid[..., None, None], x, 0) for x in (q, k, v, a, b, g))
        number = jnp.repeat(number, 2, axis=1)
    nothing = jnp.zeros_like
    q, k, v = _in_turn(nothing(q), q), _in_turn(b, k), _in_turn(nothing(v), v)
    a, g = _in_turn(-a, nothing(a)), _in_turn(g, nothing(g))
    y, last = wy.run(q, k, v, a, g, float(scale), initial_state, number, undecayed=True)
    return y[:, 1::2], last


def _in_turn(x: jax.Array, y: jax.Array) -> jax.Array:
    """The tokens of both, one of x and one of y in turn."""
    return jnp.stack([x, y], 2).reshape(x.shape[0], -1, *x.shape[2:])
