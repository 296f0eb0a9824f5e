"""The definition of long_conv: one token at a time. It is the oracle; it is not meant to be fast."""

import jax.numpy as jnp

from ..segments import scan_tokens


def unsupported(**_) -> str | None:
    """The definition runs everything."""
    return None


def run(x, kernel, *, initial_state, segment_ids):
    """See ``long_conv``."""
    if initial_state is None:
        initial_state = jnp.zeros((x.shape[0], kernel.shape[0] - 1, x.shape[2]), kernel.dtype)

    def step(past, x):
        window = jnp.concatenate([past, x[:, None]], axis=1)
        return window[:, 1:], jnp.einsum("bld,ld->bd", window, kernel[::-1])

    past, y = scan_tokens(step, initial_state, x.astype(kernel.dtype), segment_ids)
    return y.astype(x.dtype), past
