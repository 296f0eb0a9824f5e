"""Selective scan over chunks of time, any device: the ``[B, T, D, N]`` states exist for one chunk at a time."""

import jax
import jax.numpy as jnp

from ..expanded import scan_expanded


def unsupported(**_) -> str | None:
    """Everything runs."""
    return None


@jax.jit
def run(x, dt, A, B, C, *, initial_state, segment_ids):
    """See ``selective_scan``. Channels are the last axis here: they fill vector registers, the few states do not."""
    dtype = initial_state.dtype

    def terms(A, inputs):
        x, dt, B, C = jax.tree.map(lambda z: z.astype(dtype), inputs)
        return jnp.exp(dt[:, :, None] * A), (dt * x)[:, :, None] * B[..., None], C[..., None]

    A, state = A.astype(dtype).T, initial_state.swapaxes(1, 2)
    y, state = scan_expanded(terms, A, state, (x, dt, B, C), segment_ids, x.dtype)
    return y, state.swapaxes(1, 2)
