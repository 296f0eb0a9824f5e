"""The definition of ttt_linear: one token at a time. It is the oracle; it is not meant to be fast."""

import jax.numpy as jnp

from ..checks import state_dtype
from ..segments import scan_tokens
from .norm import descent, layer_norm


def unsupported(**_) -> str | None:
    """The definition runs everything."""
    return None


def run(q, k, v, eta, *, schedule, W0, c0, scale, bias, initial_state, segment_ids):
    """See ``ttt_linear``."""
    dtype, M = state_dtype(q, k, v), len(schedule)

    def step(state, x):
        (dW, dc, G, e, place), (q, k, v, eta) = state, x
        done = jnp.where(place == 0, schedule[-1], 0)[:, None, None]
        going = jnp.where(place == 0, 0, 1).astype(dtype)[:, None, None]
        dW, dc = dW - done[..., None] * G, dc - done * e
        G, e = going[..., None] * G, going * e
        W, c = W0 + dW, c0 + dc
        u = eta[..., None] * descent(jnp.einsum("bhk,bhkv->bhv", k, W) + c, v - k, scale, bias)
        G, e = G + k[..., None] * u[..., None, :], e + u
        s = schedule[place.astype(int)][:, None, None]
        z = jnp.einsum("bhk,bhkv->bhv", q, W - s[..., None] * G) + c - s * e
        return (dW, dc, G, e, (place + 1) % M), q + layer_norm(z, scale, bias)

    state, y = scan_tokens(step, initial_state, tuple(a.astype(dtype) for a in (q, k, v, eta)), segment_ids)
    return y.astype(v.dtype), state
