"""The definition of gla: one token at a time. It is the oracle; it is not meant to be fast."""

import jax.numpy as jnp

from ..checks import state_dtype
from ..heads import repeat_heads
from ..segments import scan_tokens


def unsupported(**_) -> str | None:
    """The definition runs everything."""
    return None


def run(q, k, v, g, *, gv, bonus, scale, initial_state, segment_ids):
    """See ``gla``."""
    H, dtype = v.shape[2], state_dtype(q, k, v)
    q, k = (repeat_heads(x, H).astype(dtype) for x in (q, k))
    if g is None:
        g = jnp.zeros(H, dtype)
    g = repeat_heads(g, H) if g.ndim == 4 else jnp.broadcast_to(g, v.shape[:3])[..., None]
    g = g[..., None] if gv is None else gv[..., None, :]

    def step(S, x):
        q, k, v, g = x
        new = jnp.exp(g) * S + k[..., None] * v[..., None, :]
        if bonus is None:
            return new, jnp.einsum("bhkv,bhk->bhv", new, scale * q)
        own = jnp.einsum("bhk,bhk->bh", bonus * k, scale * q)
        return new, jnp.einsum("bhkv,bhk->bhv", S, scale * q) + own[..., None] * v

    S, y = scan_tokens(step, initial_state, (q, k, v.astype(dtype), g.astype(dtype)), segment_ids)
    return y.astype(v.dtype), S
