"""Chunk-parallel delta rule, any device."""

import jax
import jax.numpy as jnp

from ..checks import state_dtype
from ..chunks import chunk_length, head_first, matmul_precision, scan_chunks
from ..decay import decays
from ..triangular import solve


def unsupported(**_) -> str | None:
    """Everything runs."""
    return None


@jax.jit
def run(q, k, v, beta, g, *, scale, initial_state, segment_ids):
    """See ``delta_rule``."""
    scale = jnp.asarray(scale, state_dtype(q, k, v))
    return scan_chunks(_chunk, chunk_length(v.shape[1]), scale, initial_state, (q, k, v, beta, g), segment_ids)


def _chunk(scale, S, x, links):
    """With the values u that are really written, the delta rule is gated linear attention.

    They solve ``u_i + beta_i sum_{j<i} (k_i . decay k_j) u_j = beta_i (v_i - (decay S)^T k_i)``.
    """
    dtype, C = x[2].dtype, x[2].shape[1]
    q, k, v, beta, g = head_first(x, S.shape[1], S.dtype)
    beta = beta[..., None]
    with matmul_precision(dtype):
        decay = decays(g, C, links)
        left = jnp.stack([scale * q, k], 2)
        scores = decay.scores(left, k)
        q_read, k_read = jnp.moveaxis((decay.enter[:, :, None] * left) @ S[:, :, None], 2, 0)
        u = solve(beta * scores[:, :, 1], beta * (v - k_read))
        y = scores[:, :, 0] @ u + q_read
        S = decay.through * S + (decay.leave * k).swapaxes(2, 3) @ u
    return S, jnp.moveaxis(y, 1, 2).astype(dtype)
