"""Chunk-parallel delta rule, any device."""

from functools import partial

import jax
import jax.numpy as jnp

from ..checks import state_dtype
from ..chunks import chunk_length, head_first, matmul_precision, scan_chunks
from ..decay import decays
from ..wy import wy


def unsupported(**_) -> str | None:
    """Everything runs."""
    return None


@partial(jax.jit, static_argnames="read")
def run(q, k, v, beta, g, *, erase_key, read, scale, initial_state, segment_ids):
    """See ``delta_rule``."""
    scale = jnp.asarray(scale, state_dtype(q, k, v))
    chunk = partial(_chunk, read == "undecayed")
    xs = (q, k, v, beta, g, erase_key)
    return scan_chunks(chunk, chunk_length(v.shape[1]), scale, initial_state, xs, segment_ids)


def _chunk(undecayed, scale, S, x, links):
    """The delta rule writes ``w v - S^T (e p)`` under k."""
    dtype, C = x[2].dtype, x[2].shape[1]
    q, k, v, beta, g, p = head_first(x, S.shape[1], S.dtype)
    e, w = beta if isinstance(beta, tuple) else (beta[..., None], beta[..., None])
    with matmul_precision(dtype):
        a = e * (k if p is None else p)
        S, y = wy(decays(g, C, links), links, S, scale * q, a, k, w * v, undecayed=undecayed)
    return S, jnp.moveaxis(y, 1, 2).astype(dtype)
