"""Diagonal SSM by matrix products over chunks of time, any device; token by token where segments or a rest ask for it.

The decay is rounded once and multiplied M times where the memory is M tokens long: a relative error of about M times
that of a float32 number, as in every recurrence with constant decays.
"""

import jax
import jax.numpy as jnp

from ..expanded import scan_expanded
from ..linear_scan.xla import scan

CHUNK = 32


def unsupported(**_) -> str | None:
    """Everything runs."""
    return None


@jax.jit
def run(x, log_a, c, *, initial_state, segment_ids):
    """See ``diagonal_ssm``."""
    a, whole = jnp.exp(log_a), x.shape[1] // CHUNK * CHUNK
    if segment_ids is not None or whole == 0:
        return by_tokens(x, a, c, initial_state, segment_ids)
    y, state = by_chunks(x[:, :whole], a, c, initial_state)
    if whole < x.shape[1]:
        rest, state = by_tokens(x[:, whole:], a, c, state, None)
        y = jnp.concatenate([y, rest], axis=1)
    return y, state


def by_tokens(x, a, c, state, segment_ids):
    """The recurrence itself; its ``[B, T, D, N]`` states exist for one chunk at a time."""

    def terms(params, inputs):
        (a, c), (x, token) = params, inputs
        token = token[:, :, None, None]
        return jnp.where(token > 0, a, 1), x[:, :, None].astype(a.dtype), token * c

    token = jnp.ones(x.shape[:2], c.real.dtype)  # scan_expanded makes it zero where there is none
    y, state = scan_expanded(terms, (a.T, c.T), state.swapaxes(1, 2), (x, token), segment_ids, x.dtype)
    return y, state.swapaxes(1, 2)


def by_chunks(x, a, c, state):
    """Within a chunk the convolution as a product with a Toeplitz matrix, between chunks the states; C divides T."""
    (B, T, D), N, dtype = x.shape, a.shape[1], c.real.dtype
    x_chunks = x.reshape(B, T // CHUNK, CHUNK, D).astype(dtype)
    power = jnp.ones((1, D, N), a.dtype)
    step = a
    while power.shape[0] < CHUNK:
        power, step = jnp.concatenate([power, power * step]), step * step
    with jax.default_matmul_precision("highest"):
        kernel = real_sum("jdn,dn->jd", power, c)
        lag = jnp.arange(CHUNK)[:, None] - jnp.arange(CHUNK)
        toeplitz = jnp.where((lag >= 0)[..., None], kernel[lag], 0)
        within = jnp.einsum("ijd,bpjd->bpid", toeplitz, x_chunks)
        written = [jnp.einsum("jdn,bpjd->bpdn", part, x_chunks) for part in (power[::-1].real, power[::-1].imag)]
        written = jax.lax.complex(*written).reshape(B, -1, D * N)
        through = jnp.broadcast_to(step.reshape(-1), written.shape)
        left, _ = scan(through, written, state.reshape(B, D * N), False)
        states = jnp.concatenate([state[:, None], left.reshape(B, -1, D, N)], axis=1)
        entered = real_sum("idn,bpdn->bpid", power * (a * c), states[:, :-1])
    return (within + entered).reshape(x.shape).astype(x.dtype), states[:, -1]


def real_sum(equation, a, b):
    """The real part of a sum of products."""
    return jnp.einsum(equation, a.real, b.real) - jnp.einsum(equation, a.imag, b.imag)
