"""The definition of log_linear: one token at a time. It is the oracle; it is not meant to be fast."""

import jax.numpy as jnp

from ..checks import state_dtype
from ..heads import repeat_heads
from ..segments import scan_tokens
from . import digits


def unsupported(**_) -> str | None:
    """The definition runs everything."""
    return None


def run(q, k, v, g, weights, *, scale, initial_state, segment_ids):
    """See ``log_linear``. After a token, the blocks that are full merge into the next larger one."""
    H, dtype, top = v.shape[2], state_dtype(q, k, v), weights.shape[3] - 1
    q, k = (repeat_heads(x, H).astype(dtype) for x in (q, k))
    levels = jnp.arange(1, top + 1)

    def step(state, x):
        (S, count), (q, k, v, g, w) = state, x
        S = jnp.exp(g)[..., None, None, None] * S
        write = k[..., None] * v[..., None, :]
        read = w[..., 0, None, None] * write + jnp.einsum("bhl,bhlkv->bhkv", w[..., 1:], S)
        new = jnp.minimum(digits(count.astype(jnp.int32) ^ (count.astype(jnp.int32) + 1)), top)[:, None]
        full = levels < new
        merged = write + jnp.einsum("bl,bhlkv->bhkv", full.astype(dtype), S)
        S = jnp.where(full[:, None, :, None, None], 0, S)
        S = S + (levels == new).astype(dtype)[:, None, :, None, None] * merged[:, :, None]
        return (S, count + 1), jnp.einsum("bhk,bhkv->bhv", scale * q, read)

    xs = (q, k, *(x.astype(dtype) for x in (v, g, weights)))
    state, y = scan_tokens(step, initial_state, xs, segment_ids)
    return y.astype(v.dtype), state
