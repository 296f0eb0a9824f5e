"""What ``gpu.walk`` takes of chunks with one gate per token and head, and what becomes of its cotangents.

With D the decays inside a chunk,

    P = scale (q k^T * D)        X = (I + tril(a k^T * D, -1))^-1

A block has one chunk of one head, and backward 64 channels of it: all of them run at once.
"""

import functools

import jax
import jax.numpy as jnp

from .chunk import axis, factor_cotangents, of_chunk, weight_cotangents
from .decay import enter_decays, gate_gradients, leave_decays, through_decay, within_decays
from .mosaic import (
    TILE,
    by_row,
    call,
    indices,
    load,
    part,
    product,
    put,
    send,
    sent,
    shared,
    transposed,
)  # fmt: skip
from .triangular import inverse


def _forward_kernel(scale: float, q, k, a, sums, P, X, out, left, right) -> None:
    b, h, n = axis("batch"), axis("head"), axis("chunk")

    def step(q, k, a, sums):
        decay = within_decays(sums, rows_later=True, log_scale=0.0)
        put(out, product(q, transposed(k)) * decay * scale)
        r, c = indices()
        put(left, inverse(jnp.where(r > c, product(a, transposed(k)) * decay, 0.0), left, right))
        send((out, P.at[b, h, n]), (left, X.at[b, h, n]))

    of_chunk(step, [q, k, a], [sums], sums.shape[1], width=q.shape[3], column=0)
    sent(everywhere=True)


def forward(scale: float, q, k, a, sums) -> list[jax.Array]:
    """P and X, ``[B, H, N, 64, 64]``."""
    B, H, N = sums.shape[:3]
    return call(
        functools.partial(_forward_kernel, scale), "weights_forward", grid={"batch": B, "head": H, "chunk": N},
        outputs=[((B, H, N, TILE, TILE), q.dtype)] * 2, scratch=[shared(TILE, TILE)] * 3,
    )(q, k, a, sums)  # fmt: skip


def _backward_kernel(scale: float, q, k, a, sums, u, dv, dy, states, dstates, *refs) -> None:
    dq_out, dk_out, da_out, pieces, of_p, of_a, dq_low, dk_low, da_low, piece = refs
    b, h, n, c = axis("batch"), axis("head"), axis("chunk"), axis("column")

    def step(q, k, a, sums):
        # What is of the weights is done with before the factors begin: the registers do not hold both.
        dP, dA = weight_cotangents(u, dv, dy, erases=True)
        decay = within_decays(sums, rows_later=True, log_scale=0.0)
        r, i = indices()
        dP, dA = dP * decay * scale, jnp.where(r > i, dA * decay, 0.0)
        put(of_p, dP)
        put(of_a, dA)
        # A token's own product does not depend on gates.
        both = jnp.where(r > i, product(q, transposed(k)) * dP, 0.0) + product(a, transposed(k)) * dA
        piece[0], later = -jnp.sum(both, 0), jnp.sum(both, 1)
        (dread, dwrite, dheld), passing = factor_cotangents(u, dv, dy, states, dstates, erases=True)
        enter = enter_decays(sums)
        dread, dheld = by_row(enter * scale) * dread, by_row(enter) * dheld
        dwrite = by_row(leave_decays(sums)) * dwrite
        piece[1] = later + jnp.sum(load(q) * dread + load(a) * dheld, 1)
        piece[2] = jnp.sum(load(k) * dwrite, 1)
        piece[3] = through_decay(sums) * passing
        put(dq_low, product(of_p, k) + dread)
        put(da_low, product(of_a, k) + dheld)
        put(dk_low, product(transposed(of_p), q, (transposed(of_a), a)) + dwrite)
        key = lambda ref: ref.at[b, part(n), h, part(c)]  # noqa: E731
        send((dq_low, key(dq_out)), (dk_low, key(dk_out)), (da_low, key(da_out)), (piece, pieces.at[b, h, c, n]))

    of_chunk(step, [q, k, a], [sums], sums.shape[1], width=TILE, column=c)
    sent(everywhere=True)


def backward(scale: float, q, k, a, gates: tuple, walked: tuple) -> tuple[jax.Array, ...]:
    """The gradients of q, k and a for each value head, and of the natural-log gates ``[B, T, H]``.

    ``gates`` holds the sums; ``walked`` are u, the cotangents of v and y, the states that enter and the cotangents of
    those that leave.
    """
    (sums,) = gates
    (B, T, H, K), N = a.shape, sums.shape[2]
    *found, pieces = call(
        functools.partial(_backward_kernel, scale), "weights_backward",
        grid={"batch": B, "head": H, "chunk": N, "column": K // TILE},
        outputs=[*[(a.shape, a.dtype)] * 3, ((B, H, K // TILE, N, 4, TILE), jnp.float32)],
        scratch=[*[shared(TILE, TILE)] * 5, shared(4, TILE, dtype=jnp.float32)],
    )(q, k, a, sums, *walked)  # fmt: skip
    return *found, gate_gradients(pieces.sum(2)).reshape(B, H, T).swapaxes(1, 2)
