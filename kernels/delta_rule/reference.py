"""The definition of the delta rule: one token at a time. It is the oracle; it is not meant to be fast."""

import jax.numpy as jnp

from ..checks import state_dtype
from ..heads import repeat_heads
from ..segments import scan_tokens


def unsupported(**_) -> str | None:
    """The definition runs everything."""
    return None


def run(q, k, v, beta, g, *, scale, initial_state, segment_ids):
    """See ``delta_rule``."""
    H, dtype = v.shape[2], state_dtype(q, k, v)
    q, k = (repeat_heads(x, H).astype(dtype) for x in (q, k))
    if g is None:
        g = jnp.zeros(v.shape[:3], dtype)
    g = repeat_heads(g, H) if g.ndim == 4 else g[..., None]

    def step(S, x):
        q, k, v, beta, g = x
        S = jnp.exp(g)[..., None] * S
        error = v - jnp.einsum("bhkv,bhk->bhv", S, k)
        S = S + k[..., None] * (beta[..., None] * error)[..., None, :]
        return S, jnp.einsum("bhkv,bhk->bhv", S, scale * q)

    xs = (q, k, v.astype(dtype), beta.astype(dtype), g.astype(dtype))
    S, y = scan_tokens(step, initial_state, xs, segment_ids)
    return y.astype(v.dtype), S
