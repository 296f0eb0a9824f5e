"""Chunk-parallel log-linear attention, any device. Chunks need not be aligned with the tree's blocks."""

import jax
import jax.numpy as jnp

from ..checks import state_dtype
from ..chunks import chunk_length, head_first, matmul_precision, scan_chunks
from ..decay import decays
from . import digits, positions


def unsupported(**_) -> str | None:
    """Everything runs."""
    return None


@jax.jit
def run(q, k, v, g, weights, *, scale, initial_state, segment_ids):
    """See ``log_linear``."""
    T, dtype = v.shape[1], state_dtype(q, k, v)
    place = (positions(initial_state[1], T, segment_ids) + 1).astype(dtype)  # so that 0 is padding
    xs = q, k, v, g, weights, place
    return scan_chunks(_chunk, chunk_length(T), jnp.asarray(scale, dtype), initial_state, xs, segment_ids)


def _chunk(scale, state, x, links):
    """Within the chunk, a score's weight is that of the pair's level; of what came before, whole levels move together.

    With n tokens before the chunk, all of what level l holds is at level ``max(l, digits(n xor t))`` for token t.
    """
    S, count = state
    dtype, (B, C), top = x[2].dtype, x[5].shape, x[4].shape[3] - 1
    q, k, v, g, w = head_first(x[:5], S.shape[1], S.dtype)
    position, before, levels = x[5].astype(jnp.int32) - 1, count.astype(jnp.int32), jnp.arange(1, top + 1)
    hot = lambda level, first=0: jax.nn.one_hot(level - first, top + 1 - first, dtype=S.dtype)  # noqa: E731
    level = lambda t, j: jnp.minimum(digits(t ^ j), top)  # noqa: E731
    moved = lambda t: jnp.maximum(levels, level(t, before.reshape(B, *[1] * (t.ndim - 1)))[..., None])  # noqa: E731

    every = jnp.ones((B, C), bool)
    leave, through = (every, every[:, 0]) if links is None else (links.leave, links.through)
    after = jnp.maximum(jnp.where(leave, x[5], 0).max(1), jnp.where(through, count, 0))
    last = after.astype(jnp.int32)

    with matmul_precision(dtype):
        decay = decays(g, k, links)
        q = scale * q
        pairs = jnp.einsum("bhil,bijl->bhij", w, hot(level(position[:, :, None], position[:, None])))
        past = jnp.einsum("bhil,biml->bhim", w, hot(moved(position)))
        y = (decay.scores(q[:, :, None], k[:, :, None])[:, :, 0, 0] * pairs) @ v
        y = y + _read(past[..., None] * (decay.enter * q)[:, :, :, None], S)
        S = decay.through[..., None] * jnp.einsum("bml,bhmkv->bhlkv", hot(moved(last), 1), S)
        S = S + jnp.einsum("bjl,bhjk,bhjv->bhlkv", hot(level(last[:, None], position), 1), decay.leave * k, v)
    return (S, after), jnp.moveaxis(y, 1, 2).astype(dtype)


def _read(q, S):
    """``sum_lk q_ilk S_lkv`` as one product."""
    B, H, C, L, K = q.shape
    return q.reshape(B, H, C, L * K) @ S.reshape(B, H, L * K, -1)
