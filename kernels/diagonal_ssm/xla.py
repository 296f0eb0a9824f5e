"""Diagonal SSM over chunks of time, any device: the ``[B, T, D, N]`` states exist for one chunk at a time.

The decay is rounded once and multiplied M times where the memory is M tokens long: a relative error of about M times
that of a float32 number, as in every recurrence with constant decays.
"""

import jax
import jax.numpy as jnp

from ..expanded import scan_expanded


def unsupported(**_) -> str | None:
    """Everything runs."""
    return None


@jax.jit
def run(x, log_a, c, *, initial_state, segment_ids):
    """See ``diagonal_ssm``."""

    def terms(params, inputs):
        (a, c), (x, token) = params, inputs
        token = token[:, :, None, None]
        return jnp.where(token > 0, a, 1), x[:, :, None].astype(a.dtype), token * c

    params, state = (jnp.exp(log_a).T, c.T), initial_state.swapaxes(1, 2)
    token = jnp.ones(x.shape[:2], c.real.dtype)  # scan_expanded makes it zero where there is none
    y, state = scan_expanded(terms, params, state, (x, token), segment_ids, x.dtype)
    return y, state.swapaxes(1, 2)
