"""Chunk-parallel gated linear attention, any device."""

import jax
import jax.numpy as jnp

from ..checks import state_dtype
from ..chunks import chunk_length, head_first, matmul_precision, scan_chunks
from ..decay import decays, vector_decays


def unsupported(**_) -> str | None:
    """Everything runs."""
    return None


@jax.jit
def run(q, k, v, g, *, gv, bonus, scale, initial_state, segment_ids):
    """See ``gla``."""
    if g is not None and g.ndim == 1:
        g = jnp.broadcast_to(g, v.shape[:3])
    dtype = state_dtype(q, k, v)
    scale = jnp.asarray(scale, dtype)
    step, params, gate = (_chunk, scale, g) if gv is None else (_value_chunk, scale, gv)
    if bonus is not None:
        step, params = _bonus_chunk, (scale, bonus.astype(dtype))
    return scan_chunks(step, chunk_length(v.shape[1]), params, initial_state, (q, k, v, gate), segment_ids)


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


def _bonus_chunk(params, S, x, links):
    """The same, with decays up to the token before, and on the diagonal ``q^T Diag(bonus) k``."""
    scale, bonus = params
    dtype, C = x[2].dtype, x[2].shape[1]
    q, k, v, g = head_first(x, S.shape[1], S.dtype)
    with matmul_precision(dtype):
        decay = decays(g, C, links, undecayed=True)
        q = scale * q
        own = jnp.sum(q * bonus[:, None] * k, axis=-1, keepdims=True)
        y = decay.scores(q[:, :, None], k)[:, :, 0] @ v + own * v + (decay.enter * q) @ S
        S = decay.through * S + (decay.leave * k).swapaxes(2, 3) @ v
    return S, jnp.moveaxis(y, 1, 2).astype(dtype)


def _value_chunk(scale, S, x, links):
    """``o = sum_j (q k^T)_j decay_j v_j + decay (q S)`` and ``S = S decay + k^T (decay v)``: the decays on v's side."""
    dtype = x[2].dtype
    q, k, v, gv = head_first(x, S.shape[1], S.dtype)
    with matmul_precision(dtype):
        decay = vector_decays(gv, links)
        q = scale * q
        y = decay.weighted(q @ k.swapaxes(2, 3), v) + decay.enter * (q @ S)
        S = decay.through.swapaxes(2, 3) * S + k.swapaxes(2, 3) @ (decay.leave * v)
    return S, jnp.moveaxis(y, 1, 2).astype(dtype)
