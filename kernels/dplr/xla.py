"""Chunk-parallel dplr, any device."""

import jax
import jax.numpy as jnp

from ..checks import state_dtype
from ..chunks import chunk_length, head_first, matmul_precision, scan_chunks
from ..decay import decays
from ..wy import wy


def unsupported(**_) -> str | None:
    """Everything runs."""
    return None


@jax.jit
def run(q, k, v, a, b, g, *, scale, initial_state, segment_ids):
    """See ``dplr``."""
    scale = jnp.asarray(scale, state_dtype(q, k, v))
    return scan_chunks(_chunk, chunk_length(v.shape[1]), scale, initial_state, (q, k, v, a, b, g), segment_ids)


def _chunk(scale, S, x, links):
    dtype, C = x[2].dtype, x[2].shape[1]
    q, k, v, a, b, g = head_first(x, S.shape[1], S.dtype)
    with matmul_precision(dtype):
        S, y = wy(decays(g, C, links), links, S, scale * q, -a, b, kv=(k, v), undecayed=True)
    return S, jnp.moveaxis(y, 1, 2).astype(dtype)
