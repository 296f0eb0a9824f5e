"""Chunk-parallel dplr, any device."""

import jax
import jax.numpy as jnp

from ..checks import state_dtype
from ..chunks import head_first, matmul_precision, scan_groups
from ..decay import decays
from ..wy import wy


def unsupported(**_) -> str | None:
    """Everything runs."""
    return None


@jax.jit
def run(q, k, v, a, b, g, *, scale, initial_state, segment_ids):
    """See ``dplr``."""
    scale = jnp.asarray(scale, state_dtype(q, k, v))
    return scan_groups(_chunks, scale, initial_state, (q, k, v, a, b, g), segment_ids)


def _chunks(scale, S, x, links):
    dtype = x[2].dtype
    q, k, v, a, b, g = head_first(x, S.shape[1], S.dtype, axis=3)
    with matmul_precision(dtype):
        S, y = wy(decays(g, k, links), links, S, scale * q, -a, b, kv=(k, v), undecayed=True)
    return S, y.astype(dtype)
