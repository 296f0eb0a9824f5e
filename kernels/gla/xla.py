"""Chunk-parallel gated linear attention, any device."""

import jax
import jax.numpy as jnp

from ..checks import state_dtype
from ..chunks import head_first, matmul_precision, scan_groups
from ..decay import decays


def unsupported(**_) -> str | None:
    """Everything runs."""
    return None


@jax.jit
def run(q, k, v, g, *, scale, initial_state, segment_ids):
    """See ``gla``."""
    if g is not None and g.ndim == 1:
        g = jnp.broadcast_to(g, v.shape[:3])
    scale = jnp.asarray(scale, state_dtype(q, k, v))
    return scan_groups(_chunks, scale, initial_state, (q, k, v, g), segment_ids)


def _chunks(scale, S, x, links):
    """``o = (q k^T * decay) v + (decay q) S`` and ``S = decay S + (decay k)^T v``."""
    dtype = x[2].dtype
    q, k, v, g = head_first(x, S.shape[1], S.dtype)
    with matmul_precision(dtype):
        decay = decays(g, k, links)
        q = scale * q
        new = (decay.leave * k).swapaxes(-1, -2) @ v
        entering = []
        for n in range(k.shape[2]):
            entering.append(S)
            S = decay.through[:, :, n] * S + new[:, :, n]
        y = decay.scores(q[..., None, :, :], k)[..., 0, :, :] @ v + (decay.enter * q) @ jnp.stack(entering, 2)
    return S, y.astype(dtype)
