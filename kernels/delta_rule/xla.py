"""Chunk-parallel delta rule, any device."""

from functools import partial

import jax
import jax.numpy as jnp

from ..checks import state_dtype
from ..chunks import head_first, matmul_precision, scan_groups
from ..decay import decays
from ..wy import wy


def unsupported(**_) -> str | None:
    """Everything runs."""
    return None


@partial(jax.jit, static_argnames="read")
def run(q, k, v, beta, g, *, erase_key, read, scale, initial_state, segment_ids):
    """See ``delta_rule``."""
    scale = jnp.asarray(scale, state_dtype(q, k, v))
    chunks = partial(_chunks, read == "undecayed")
    return scan_groups(chunks, scale, initial_state, (q, k, v, beta, g, erase_key), segment_ids)


def _chunks(undecayed, scale, S, x, links):
    """The delta rule writes ``w v - S^T (e p)`` under k."""
    dtype = x[2].dtype
    q, k, v, beta, g, p = head_first(x, S.shape[1], S.dtype, axis=3)
    e, w = beta if isinstance(beta, tuple) else (beta[..., None], beta[..., None])
    with matmul_precision(dtype):
        a = e * (k if p is None else p)
        S, y = wy(decays(g, k, links), links, S, scale * q, a, k, w * v, undecayed=undecayed)
    return S, y.astype(dtype)
