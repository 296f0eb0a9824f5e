"""Chunk-parallel gated linear attention, any device."""

import jax
import jax.numpy as jnp

from ..checks import state_dtype
from ..chunks import chunk_length, head_first, matmul_precision, scan_chunks
from ..decay import decays


def unsupported(**_) -> str | None:
    """Everything runs."""
    return None


@jax.jit
def run(q, k, v, g, *, scale, initial_state, segment_ids):
    """See ``gla``."""
    if g is not None and g.ndim == 1:
        g = jnp.broadcast_to(g, v.shape[:3])
    dtype = state_dtype(q, k, v)
    scale = jnp.asarray(scale, dtype)
    return scan_chunks(_chunk, chunk_length(v.shape[1]), scale, initial_state, (q, k, v, g), segment_ids)


def _chunk(scale, S, x, links):
    """``o = (q k^T * decay) v + (decay q) S`` and ``S = decay S + (decay k)^T v``."""
    dtype, C = x[2].dtype, x[2].shape[1]
    q, k, v, g = head_first(x, S.shape[1], S.dtype)
    with matmul_precision(dtype):
        decay = decays(g, C, links)
        q = scale * q
        y = decay.scores(q[:, :, None], k)[:, :, 0] @ v + (decay.enter * q) @ S
        S = decay.through * S + (decay.leave * k).swapaxes(2, 3) @ v
    return S, jnp.moveaxis(y, 1, 2).astype(dtype)
