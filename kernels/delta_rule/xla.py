"""Chunk-parallel delta rule, any device."""

import jax
import jax.numpy as jnp

from ..checks import state_dtype
from ..chunks import head_first, matmul_precision, scan_groups
from ..decay import decays
from ..triangular import solve


def unsupported(**_) -> str | None:
    """Everything runs."""
    return None


@jax.jit
def run(q, k, v, beta, g, *, scale, initial_state, segment_ids):
    """See ``delta_rule``."""
    scale = jnp.asarray(scale, state_dtype(q, k, v))
    return scan_groups(_chunks, scale, initial_state, (q, k, v, beta, g), segment_ids)


def _chunks(scale, S, x, links):
    """With the values u that are really written, the delta rule is gated linear attention.

    They solve ``u_i + beta_i sum_{j<i} (k_i . decay k_j) u_j = beta_i (v_i - (decay S)^T k_i)``, so that
    ``u = a - b S`` for a and b that do not depend on S.
    """
    dtype = x[2].dtype
    q, k, v, beta, g = head_first(x, S.shape[1], S.dtype, axis=3)
    beta, q = beta[..., None], scale * q
    with matmul_precision(dtype):
        decay = decays(g, k, links)
        scores = decay.scores(jnp.stack([q, k], -3), k)
        right = jnp.concatenate([beta * v, beta * (decay.enter * k)], -1)
        a, b = jnp.split(solve(beta * scores[..., 1, :, :], right), [v.shape[-1]], -1)
        leaving = (decay.leave * k).swapaxes(-1, -2)
        entering, u = [], []
        for n in range(k.shape[2]):
            entering.append(S)
            u.append(a[:, :, n] - b[:, :, n] @ S)
            S = decay.through[:, :, n] * S + leaving[:, :, n] @ u[-1]
        y = scores[..., 0, :, :] @ jnp.stack(u, 2) + (decay.enter * q) @ jnp.stack(entering, 2)
    return S, y.astype(dtype)
