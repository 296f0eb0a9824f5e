"""The definition of dplr: one token at a time. It is the oracle; it is not meant to be fast."""

import jax.numpy as jnp

from ..checks import state_dtype
from ..heads import repeat_heads
from ..segments import scan_tokens


def unsupported(**_) -> str | None:
    """The definition runs everything."""
    return None


def run(q, k, v, a, b, g, *, scale, initial_state, segment_ids):
    """See ``dplr``."""
    H, dtype = v.shape[2], state_dtype(q, k, v)

    def step(S, x):
        q, k, v, a, b, g = x
        held = jnp.einsum("bhkv,bhk->bhv", S, a)
        S = jnp.exp(g)[..., None] * S + b[..., None] * held[..., None, :] + k[..., None] * v[..., None, :]
        return S, jnp.einsum("bhkv,bhk->bhv", S, scale * q)

    xs = tuple(repeat_heads(x, H).astype(dtype) for x in (q, k, v, a, b, g))
    S, y = scan_tokens(step, initial_state, xs, segment_ids)
    return y.astype(v.dtype), S
