"""The definition of linear_scan: one token at a time. It is the oracle; it is not meant to be fast."""

import jax
import jax.numpy as jnp

from ..checks import state_dtype
from ..segments import scan_tokens


def unsupported(**_) -> str | None:
    """The definition runs everything."""
    return None


def run(a, x, *, initial_state, segment_ids, reverse):
    """See ``linear_scan``."""
    dtype = state_dtype(a, x)

    def flip(tree):
        return jax.tree.map(lambda z: jnp.flip(z, axis=1), tree) if reverse else tree

    def step(h, inputs):
        a, x = inputs
        h = a * h + x
        return h, h

    h, y = scan_tokens(step, initial_state, flip((a.astype(dtype), x.astype(dtype))), flip(segment_ids))
    return flip(y).astype(x.dtype), h
