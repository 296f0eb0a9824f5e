"""The definition of longhorn: one token at a time. It is the oracle; it is not meant to be fast."""

import jax
import jax.numpy as jnp

from ..segments import scan_tokens


def unsupported(**_) -> str | None:
    """The definition runs everything."""
    return None


def run(x, delta, k, q, *, initial_state, segment_ids):
    """See ``longhorn``."""

    def step(h, inputs):
        x, delta, k, q = inputs
        h = (1 - delta[:, :, None] * (k**2)[:, None]) * h + (delta * x)[:, :, None] * k[:, None]
        return h, jnp.einsum("bdn,bn->bd", h, q)

    inputs = jax.tree.map(lambda z: z.astype(initial_state.dtype), (x, delta, k, q))
    h, y = scan_tokens(step, initial_state, inputs, segment_ids)
    return y.astype(x.dtype), h
