"""Chunk-parallel mLSTM, any device."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient

from ..checks import state_dtype
from ..chunks import chunk_length, head_first, matmul_precision, scan_chunks
from ..decay import interval_sums
from .reference import floor


def unsupported(**_) -> str | None:
    """Everything runs."""
    return None


@jax.jit
def run(q, k, v, i, f, *, scale, initial_state, segment_ids):
    """See ``mlstm``."""
    dtype = state_dtype(q, k, v)
    g = jax.nn.log_sigmoid(f.astype(dtype))
    xs = (q, k, v, i.astype(dtype), g, jnp.ones((*v.shape[:2], 1), dtype))
    T = v.shape[1]
    C = chunk_length(T) if T <= 32 else 64  # an eighth less time than 32 on a CPU, for K = V = 64
    return scan_chunks(_chunk, C, jnp.asarray(scale, dtype), initial_state, xs, segment_ids)


def _chunk(scale, state, x, links):
    """The weight of token j, or of the entering state, at token i is ``exp(log weight - m_i)``, m_i the largest one."""
    C, n, m = state
    dtype = x[2].dtype
    q, k, v, log_write, g, token = head_first(x, m.shape[1], m.dtype)
    j, i = np.arange(-1, g.shape[2])[:, None], np.arange(g.shape[2])
    log_write = jnp.where(token > 0, log_write, -jnp.inf)  # padding writes nothing
    log_weights = jnp.concatenate([m[..., None], log_write], 2)[..., None] + interval_sums(g)
    reaches = j <= i
    if links is not None:
        reaches &= jnp.concatenate([links.enter[:, None], links.pair.swapaxes(1, 2)], 1)[:, None]
    log_weights = jnp.where(reaches, log_weights, -jnp.inf)
    top = stop_gradient(jnp.max(log_weights, 2))
    weights = jnp.exp(log_weights - top[:, :, None])
    enter, within, leave = weights[:, :, 0, :, None], weights[:, :, 1:], weights[:, :, 1:, -1:]
    with matmul_precision(dtype):
        q = scale * q
        scores = jnp.einsum("bhik,bhjk->bhij", q, k) * within.swapaxes(2, 3)
        read = scores @ v + (enter * q) @ C
        norm = scores.sum(3) + ((enter * q) @ n[..., None])[..., 0]
        k = leave * k
        C = enter[:, :, -1:] * C + k.swapaxes(2, 3) @ v
        n = enter[:, :, -1] * n + k.sum(2)
    y = read / jnp.maximum(jnp.abs(norm), floor(top))[..., None]
    return (C, n, top[:, :, -1]), jnp.moveaxis(y, 1, 2).astype(dtype)
