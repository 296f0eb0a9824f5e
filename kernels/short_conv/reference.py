"""The definition of short_conv: one token at a time. It is the oracle; it is not meant to be fast."""

import jax
import jax.numpy as jnp

from ..segments import scan_tokens


def unsupported(**_) -> str | None:
    """The definition runs everything."""
    return None


def run(x, w, b, *, initial_state, segment_ids, activation):
    """See ``short_conv``."""
    dtype = initial_state.dtype
    w = w.astype(dtype)
    b = jnp.zeros(x.shape[2], dtype) if b is None else b.astype(dtype)

    def step(tail, x):
        window = jnp.concatenate([tail, x[:, None]], axis=1)
        y = jnp.einsum("bwd,wd->bd", window, w) + b
        return window[:, 1:], jax.nn.silu(y) if activation == "silu" else y

    tail, y = scan_tokens(step, initial_state, x.astype(dtype), segment_ids)
    return y.astype(x.dtype), tail
