"""The definition of the delta rule: one token at a time. It is the oracle; it is not meant to be fast."""

import jax.numpy as jnp

from ..checks import state_dtype
from ..heads import repeat_heads
from ..segments import scan_tokens


def unsupported(**_) -> str | None:
    """The definition runs everything."""
    return None


def run(q, k, v, beta, g, *, erase_key, read, scale, initial_state, segment_ids):
    """See ``delta_rule``."""
    H, dtype = v.shape[2], state_dtype(q, k, v)
    q, k, p = (repeat_heads(x, H).astype(dtype) for x in (q, k, k if erase_key is None else erase_key))
    if g is None:
        g = jnp.zeros(v.shape[:3], dtype)
    g = repeat_heads(g, H) if g.ndim == 4 else g[..., None]
    erase, write = beta if isinstance(beta, tuple) else (beta[..., None], beta[..., None])
    e, w = repeat_heads(erase, H).astype(dtype), write.astype(dtype)

    def step(S, x):
        q, k, v, p, e, w, g = x
        decayed = jnp.exp(g)[..., None] * S
        held = jnp.einsum("bhkv,bhk->bhv", S if read == "undecayed" else decayed, e * p)
        S = decayed + k[..., None] * (w * v - held)[..., None, :]
        return S, jnp.einsum("bhkv,bhk->bhv", S, scale * q)

    S, y = scan_tokens(step, initial_state, (q, k, v.astype(dtype), p, e, w, g.astype(dtype)), segment_ids)
    return y.astype(v.dtype), S
