"""The definition of selective_scan: one token at a time. It is the oracle; it is not meant to be fast."""

import jax
import jax.numpy as jnp

from ..segments import scan_tokens


def unsupported(**_) -> str | None:
    """The definition runs everything."""
    return None


def run(x, dt, A, B, C, *, initial_state, segment_ids):
    """See ``selective_scan``."""
    dtype = initial_state.dtype
    inputs, A = jax.tree.map(lambda z: z.astype(dtype), ((x, dt, B, C), A))

    def step(h, inputs):
        x, dt, B, C = inputs
        h = jnp.exp(dt[:, :, None] * A) * h + (dt * x)[:, :, None] * B[:, None]
        return h, jnp.einsum("bdn,bn->bd", h, C)

    h, y = scan_tokens(step, initial_state, inputs, segment_ids)
    return y.astype(x.dtype), h
