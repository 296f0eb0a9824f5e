"""Chunk-parallel TTT-Linear, any device: a chunk is no longer than a block, wherever blocks begin in it."""

import jax
import jax.numpy as jnp

from ..checks import state_dtype
from ..chunks import head_first, matmul_precision, scan_chunks
from . import places
from .norm import descent, layer_norm


def unsupported(**_) -> str | None:
    """Everything runs."""
    return None


@jax.jit
def run(q, k, v, eta, *, schedule, W0, c0, scale, bias, initial_state, segment_ids):
    """See ``ttt_linear``."""
    T, M = v.shape[1], len(schedule)
    *state, first = initial_state
    place, following = places(first, T, M, segment_ids)
    params = schedule, W0, c0[:, None], scale[:, None], bias[:, None]
    xs = q, k, v, eta, (place + 1).astype(state_dtype(q, k, v))  # so that 0 is padding
    y, state = scan_chunks(_chunk, min(M, 1 << (T - 1).bit_length()), params, tuple(state), xs, segment_ids)
    return y, (*state, following)


def _chunk(params, state, x, links):
    """A chunk's tokens are of three kinds, since in a chunk one block at most begins within a segment.

    Held: of the block that was open when the chunk began. Later: of the next block of that segment, whose map is known
    once the gradients of the held ones are. Fresh: of segments that begin in the chunk, whose map is W_0.
    """
    schedule, W0, c0, scale, bias = params
    dW, dc, G, e = state
    dtype, M = x[2].dtype, len(schedule)
    q, k, v, eta = head_first(x[:4], dW.shape[1], dW.dtype)
    place, dc, e = x[4], dc[:, :, None], e[:, :, None]
    every = jnp.ones(place.shape, bool)
    enter, leave, through = (every, every, every[:, 0]) if links is None else (links.enter, links.leave, links.through)
    begun = jnp.cumsum(enter & (place == 1), axis=1) > 0
    column = lambda mask: mask[:, None, :, None]  # noqa: E731
    held, later = column(enter & ~begun), column(enter & begun)
    last = begun[:, -1:]
    closing = column(leave & (begun == last))  # of the block that is open when the chunk ends
    block = jnp.tril(begun[:, :, None] == begun[:, None, :])
    block = (block if links is None else block & links.pair)[:, None]
    s = column(jax.nn.one_hot(place.astype(int) - 1, M, dtype=dW.dtype) @ schedule)

    with matmul_precision(dtype):
        step = lambda z: eta[..., None] * descent(z, v - k, scale, bias)  # noqa: E731
        added = lambda mask, u: ((mask * k).swapaxes(2, 3) @ u, jnp.sum(mask * u, axis=2, keepdims=True))  # noqa: E731
        u = step(jnp.where(held, k @ (W0 + dW) + dc, k @ W0) + c0)
        whole_G, whole_e = (a + b for a, b in zip((G, e), added(held, u), strict=True))
        next_W, next_c = dW - schedule[-1] * whole_G, dc - schedule[-1] * whole_e
        u = jnp.where(later, step(k @ (W0 + next_W) + c0 + next_c), u)

        start = jnp.where(held, q @ dW + dc - s * (q @ G + e), jnp.where(later, q @ next_W + next_c, 0))
        here = jnp.where(block, q @ k.swapaxes(2, 3) + 1, 0) @ u
        y = q + layer_norm(q @ W0 + c0 + start - s * here, scale, bias)
        G_out, e_out = added(closing, u)

    square = lambda mask: mask[:, None, None, None]  # noqa: E731
    keep, change = square(through & ~last[:, 0]), square(through & last[:, 0])
    pick = lambda old, new: jnp.where(keep, old, jnp.where(change, new, 0))  # noqa: E731
    state = pick(dW, next_W), pick(dc, next_c)[:, :, 0], G_out + jnp.where(keep, G, 0)
    y = jnp.where(column(place > 0), y, 0)
    return (*state, (e_out + jnp.where(keep, e, 0))[:, :, 0]), jnp.moveaxis(y, 1, 2).astype(dtype)
