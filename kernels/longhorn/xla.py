"""Longhorn over chunks of time, any device: the ``[B, T, D, N]`` states exist for one chunk at a time."""

import jax

from ..expanded import scan_expanded


def unsupported(**_) -> str | None:
    """Everything runs."""
    return None


@jax.jit
def run(x, delta, k, q, *, initial_state, segment_ids):
    """See ``longhorn``."""

    def terms(_, inputs):
        x, delta, k, q = jax.tree.map(lambda z: z.astype(initial_state.dtype), inputs)
        k = k[..., None]
        return 1 - delta[:, :, None] * k**2, (delta * x)[:, :, None] * k, q[..., None]

    state = initial_state.swapaxes(1, 2)
    y, state = scan_expanded(terms, None, state, (x, delta, k, q), segment_ids, x.dtype)
    return y, state.swapaxes(1, 2)
