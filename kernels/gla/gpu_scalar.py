"""GPU kernels of gla with one gate per token and head: a block walks over the chunks of a head with its state on chip.

The arrays are as the op has them, ``[B, T, heads, width]``; sums of gates are ``[B, H, N, 2, 64]`` (see ``sums``). With
D the decays inside a chunk:

    y = (q k^T * D) v + enter (q S)        S' = through S + k^T (leave v)

Forward a block has all of K and 64 columns of V, so that no result is summed over blocks. Backward it has all of V and
64 columns of K: of the results only dv is a sum over blocks, which is left to the caller.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from ..mosaic_gpu import (
    TILE,
    block,
    by_column,
    by_row,
    call,
    column,
    indices,
    load,
    part,
    product,
    put,
    row,
    scan,
    send,
    sent,
    shared,
    transposed,
)  # fmt: skip

LOG2E = 1.4426950408889634
LEAST = -256.0
"""To the base 2, the least log-decay of one token: 0 in float32. A border of segments is a gate of that size."""


def sums(g: jax.Array, border: jax.Array | None) -> jax.Array:
    """Natural-log gates ``[B, T, H]``, summed from a chunk's beginning, to the base 2: ``[B, H, N, 2, 64]``.

    In two parts whose differences lose nothing: the first is a multiple of 1/256 below 2^15 and so exact in float32,
    the second is at most 1/8. ``border``: ``[B, T]``, where a segment begins.
    """
    g = jnp.maximum(g * LOG2E, LEAST)
    if border is not None:
        g = jnp.where(border[..., None], LEAST, g)
    g = g.swapaxes(1, 2).reshape(g.shape[0], g.shape[2], -1, TILE)
    coarse = jnp.round(g * 256) / 256
    return jnp.cumsum(jnp.stack([coarse, g - coarse], -2), -1)


def _within(sums, *, rows_later: bool, log_scale: float) -> jax.Array:
    """The decays between the tokens of a chunk, times the scale: from columns to rows, or the other way round."""
    exponent = by_row(column(sums.at[0])) - by_column(row(sums.at[0]))
    exponent += by_row(column(sums.at[1])) - by_column(row(sums.at[1]))
    r, c = indices()
    exponent, meet = (exponent, r >= c) if rows_later else (-exponent, r <= c)
    return jnp.exp2(jnp.where(meet, exponent + log_scale, -jnp.inf))


def _enter(sums) -> jax.Array:
    """From the entering state to each token."""
    return jnp.exp2(column(sums.at[0]) + column(sums.at[1]))


def _leave(sums) -> jax.Array:
    """From each token to the leaving state."""
    last = sums[0, TILE - 1], sums[1, TILE - 1]
    return jnp.exp2((last[0] - column(sums.at[0])) + (last[1] - column(sums.at[1])))


def _through(sums) -> jax.Array:
    """From the entering to the leaving state."""
    return jnp.exp2(sums[0, TILE - 1] + sums[1, TILE - 1])


def _forward_kernel(scale: float, keep: bool, q, k, v, sums, first, *refs) -> None:
    y, last, *kept, low, state, out = refs
    b, h, c = (lax.axis_index(name) for name in ("batch", "head", "column"))
    N, K = sums.shape[2], q.shape[3]
    tiles, n_key = range(K // TILE), h // (v.shape[2] // k.shape[2])

    def step(n, q, k, v, sums, S):
        sent()
        for m in tiles:
            state[part(m)] = S[m].astype(state.dtype)
        decay = _within(sums, rows_later=True, log_scale=math.log2(scale))
        put(low, product(q, transposed(k)) * decay)
        read = product(low, v) + by_row(_enter(sums) * scale) * product(q, state)
        put(low, load(v) * by_row(_leave(sums)))
        written = [product(transposed(k.at[:, part(m)]), low) for m in tiles]
        through = _through(sums)  # before the send: after it, the fetch of a later chunk may overwrite the sums
        out[...] = read.astype(out.dtype)
        send((out, y.at[b, part(n), h, part(c)]), *((state, ref.at[b, h, n, :, part(c)]) for ref in kept))
        return tuple(through * S[m] + written[m] for m in tiles)

    whole = block((TILE, K), lambda n: (n, 0))
    gates = block((None, 2, TILE), lambda n: (n, 0, 0), factor=False)
    S = scan(
        step, N, 2, [whole, whole, block((TILE, TILE), lambda n: (n, c)), gates],
        [q.at[b, :, n_key], k.at[b, :, n_key], v.at[b, :, h], sums.at[b, h]],
        tuple(load(first.at[b, h, part(m), part(c)], optimized=False) for m in tiles),
    )  # fmt: skip
    for m in tiles:
        last[b, h, part(m), part(c)] = S[m]
    sent(everywhere=True)


def forward(scale: float, keep: bool, q, k, v, sums, first) -> list[jax.Array]:
    """``y``, the last state and, if they are to be kept, the states that enter the chunks."""
    (B, _, H, V), K, N = v.shape, q.shape[3], sums.shape[2]
    outputs = [(v.shape, v.dtype), (first.shape, jnp.float32), *[((B, H, N, K, V), v.dtype)] * keep]
    return call(
        functools.partial(_forward_kernel, scale, keep), "gla_scalar_forward",
        grid={"batch": B, "head": H, "column": V // TILE}, outputs=outputs,
        scratch=[shared(TILE, TILE), shared(K, TILE), shared(TILE, TILE)],
    )(q, k, v, sums, first)  # fmt: skip


def _backward_kernel(scale: float, q, k, v, dy, kept, sums, dlast, *refs) -> None:
    """The last chunk first. Products inside the chunk are transposed: rows are the earlier tokens."""
    dq, dk, dv, pieces, dfirst, low, dstate, dq_out, dk_out, dv_out, piece = refs
    b, h, c = (lax.axis_index(name) for name in ("batch", "head", "column"))
    N, V = sums.shape[2], v.shape[3]
    tiles, n_key = range(V // TILE), h // (v.shape[2] // k.shape[2])

    def step(done, q, k, v, dy, state, sums, dS):
        n = N - 1 - done
        sent()
        for m in tiles:
            dstate[:, part(m)] = dS[m].astype(dstate.dtype)
        decay = _within(sums, rows_later=False, log_scale=math.log2(scale))
        enter, leave, through = _enter(sums) * scale, _leave(sums), _through(sums)
        scores = product(k, transposed(q))
        put(low, scores * decay)
        for m in tiles:
            write = by_row(leave) * product(k, dstate.at[:, part(m)])
            dv_out[:, part(m)] = (product(low, dy.at[:, part(m)]) + write).astype(dv_out.dtype)
        dscores = product(v, transposed(dy)) * decay
        r, i = indices()
        both = jnp.where(r == i, 0.0, scores * dscores)  # a token's own product does not depend on gates
        put(low, dscores)
        write = by_row(leave) * product(v, transposed(dstate))
        dk_out[...] = (product(low, q) + write).astype(dk_out.dtype)
        read = by_row(enter) * product(dy, transposed(state))
        dq_out[...] = (product(transposed(low), k) + read).astype(dq_out.dtype)
        piece[0] = jnp.sum(both, 0)
        piece[1] = jnp.sum(load(q) * read - both, 1)
        piece[2] = jnp.sum(load(k) * write, 1)
        piece[3] = through * sum(jnp.sum(load(state.at[:, part(m)]) * dS[m], 1) for m in tiles)
        put(low, load(q) * by_row(enter))
        dS = tuple(through * dS[m] + product(transposed(low), dy.at[:, part(m)]) for m in tiles)
        send(
            (dq_out, dq.at[b, part(n), h, part(c)]), (dk_out, dk.at[b, part(n), h, part(c)]),
            (dv_out, dv.at[c, b, part(n), h]), (piece, pieces.at[b, h, c, n]),
        )  # fmt: skip
        return dS

    key = block((TILE, TILE), lambda n: (N - 1 - n, c))
    value = block((TILE, V), lambda n: (N - 1 - n, 0))
    gates = block((None, 2, TILE), lambda n: (N - 1 - n, 0, 0), factor=False)
    dS = scan(
        step, N, 2 if V <= 128 else 1,
        [key, key, value, value, block((None, TILE, V), lambda n: (N - 1 - n, c, 0)), gates],
        [q.at[b, :, n_key], k.at[b, :, n_key], v.at[b, :, h], dy.at[b, :, h], kept.at[b, h], sums.at[b, h]],
        tuple(load(dlast.at[b, h, part(c), part(m)], optimized=False) for m in tiles),
    )  # fmt: skip
    for m in tiles:
        dfirst[b, h, part(c), part(m)] = dS[m]
    sent(everywhere=True)


def backward(scale: float, q, k, v, dy, kept, sums, dlast) -> tuple[jax.Array, ...]:
    """The gradients of q and k for each value head, of v, of the natural-log gates and of the first state."""
    (B, T, H, V), K, N = v.shape, q.shape[3], sums.shape[2]
    dkey = ((B, T, H, K), q.dtype)
    outputs = [dkey, dkey, ((K // TILE, *v.shape), v.dtype), ((B, H, K // TILE, N, 4, TILE), jnp.float32)]
    dq, dk, dv, pieces, dfirst = call(
        functools.partial(_backward_kernel, scale), "gla_scalar_backward",
        grid={"batch": B, "head": H, "column": K // TILE}, outputs=[*outputs, (dlast.shape, jnp.float32)],
        scratch=[shared(TILE, TILE), shared(TILE, V), shared(TILE, TILE), shared(TILE, TILE), shared(TILE, V),
                 shared(4, TILE, dtype=jnp.float32)],
    )(q, k, v, dy, kept, sums, dlast)  # fmt: skip
    # The gate of t decays what passes it: between tokens inside, from before to tokens, to after, from before to after.
    columns, rows, after, passing = jnp.moveaxis(pieces.sum(2), -2, 0)
    until = jnp.flip(jnp.cumsum(jnp.flip(columns + rows, -1), -1), -1)
    before = jnp.cumsum(jnp.pad(after[..., :-1], [(0, 0)] * 3 + [(1, 0)]), -1)
    dg = until + before + passing.sum(-1, keepdims=True)
    return dq, dk, dv.astype(jnp.float32).sum(0), dg.reshape(B, H, T).swapaxes(1, 2), dfirst
