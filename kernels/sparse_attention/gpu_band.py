"""A ``Band`` on a Hopper GPU: tiles of 64 queries and 64 keys, and of these only the ones that meet.

Which tiles of keys a tile of queries meets is data, so that a window costs what it sees, and packed documents less. The
arrays of tokens are ``[B, steps, heads, width]``; limits are the first and the last key that each query sees,
``[B, N, 2, 64]``; bounds are the first tile to meet and how many there are, ``[B, N, 2]``.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from ..gpu.mosaic import TILE, block, call, fetch, indices, part, scan, send, sent, shared, spread_integers, sums
from . import gpu_tile
from .gpu_tile import Wanted

BUFFERS = 2
"""How many tiles are in shared memory."""


def _place() -> list[jax.Array]:
    return [lax.axis_index(name) for name in ("batch", "head", "tile")]


def _of_queries(step, refs: list, bounds, key_head, carry):
    """``step(key tile, k, v, carry)`` over the tiles of keys that this block's queries meet."""
    b, _, n = _place()
    first = bounds[b, n, 0]
    tiles = [block((TILE, ref.shape[3]), lambda j: (first + j, 0)) for ref in refs]
    over = lambda j, *rest: step(first + j, *rest)  # noqa: E731
    return scan(over, bounds[b, n, 1], BUFFERS, tiles, [ref.at[b, :, key_head] for ref in refs], carry)


def _forward_kernel(heads: int, q, k, v, limits, bounds, y, lse, query, limit, low, out, log) -> None:
    b, h, n = _place()
    fetch((q.at[b, part(n), h], query), (limits.at[b, n], limit))
    lo, hi = (spread_integers(limit.at[i], 0) for i in range(2))

    def step(m, k, v, carry):
        key = indices()[1] + m * TILE
        return gpu_tile.attend(query, k, v, (lo <= key) & (key <= hi), low, carry)

    gpu_tile.attended(_of_queries(step, [k, v], bounds, h // heads, gpu_tile.nothing(v.shape[3])), out, log)
    send((out, y.at[b, part(n), h]), (log, lse.at[b, h, n]))
    sent(everywhere=True)


def forward(q, k, v, limits, bounds) -> list[jax.Array]:
    """The softmax ``[B, T, H, V]`` over what is seen, and the logarithm of its denominator, ``[B, H, N, 64]``."""
    (B, T, H, K), V, N = q.shape, v.shape[3], limits.shape[1]
    return call(
        functools.partial(_forward_kernel, H // k.shape[2]), "window_forward",
        grid={"batch": B, "head": H, "tile": N},
        outputs=[((B, T, H, V), v.dtype), ((B, H, N, TILE), jnp.float32)],
        scratch=[shared(TILE, K), shared(2, TILE, dtype=jnp.int32), shared(TILE, TILE), shared(TILE, V),
                 shared(TILE, dtype=jnp.float32)],
    )(q, k, v, limits, bounds)  # fmt: skip


def _query_kernel(heads: int, q, k, v, limits, bounds, dy, stats, dq, query, limit, dout, stat, low) -> None:
    b, h, n = _place()
    fetch((q.at[b, part(n), h], query), (dy.at[b, part(n), h], dout))
    fetch((limits.at[b, n], limit), (stats.at[b, h, n], stat))
    lo, hi = (spread_integers(limit.at[i], 0) for i in range(2))
    of_queries = gpu_tile.query_stats(stat)

    def run(dquery):
        def step(m, k, v):
            key = indices()[1] + m * TILE
            seen = (lo <= key) & (key <= hi)
            gpu_tile.add_query_gradient(query, dout, k, v, seen, of_queries, low, dquery)

        _of_queries(step, [k, v], bounds, h // heads, None)

    gpu_tile.write((query, sums(run, q.shape[3] // TILE)))
    send((query, dq.at[b, part(n), h]))
    sent(everywhere=True)


def query_gradients(q, k, v, limits, bounds, dy, stats) -> jax.Array:
    """Of q. ``stats`` are, to the base 2, the logarithm of the denominator, and ``sum(dy y)``: ``[B, H, N, 2, 64]``."""
    (B, _, H, K), V, N = q.shape, v.shape[3], limits.shape[1]
    (dq,) = call(
        functools.partial(_query_kernel, H // k.shape[2]), "window_query_gradients",
        grid={"batch": B, "head": H, "tile": N}, outputs=[(q.shape, q.dtype)],
        scratch=[shared(TILE, K), shared(2, TILE, dtype=jnp.int32), shared(TILE, V),
                 shared(2, TILE, dtype=jnp.float32), shared(TILE, TILE)],
    )(q, k, v, limits, bounds, dy, stats)  # fmt: skip
    return dq


def _key_kernel(heads: int, wanted: Wanted, q, k, v, limits, bounds, dy, stats, *rest) -> None:
    """A tile of keys meets the queries of all heads that share it, a head after the other. Scores are transposed."""
    *outputs, key, value, low = rest
    b, g, m = _place()
    fetch((k.at[b, part(m), g], key), *[(v.at[b, part(m), g], value)] * wanted.keys)
    first, count = bounds[b, m, 0], bounds[b, m, 1]
    head = lambda i: g * heads + lax.div(i, count)  # noqa: E731
    tile = lambda i: first + lax.rem(i, count)  # noqa: E731
    K, V = q.shape[3], v.shape[3]

    wide = lambda width: block((TILE, None, width), lambda i: (tile(i), head(i), 0))  # noqa: E731
    of_tile = block((None, 2, TILE), lambda i: (tile(i), 0, 0), factor=False)
    of_both = block((None, None, 2, TILE), lambda i: (head(i), tile(i), 0, 0), factor=False)

    def run(dkey, dvalue):
        def step(_, query, dout, limit, stat):
            lo, hi = (spread_integers(limit.at[i], 1) for i in range(2))
            token = indices()[0] + m * TILE
            seen = (lo <= token) & (token <= hi)
            gpu_tile.add_key_gradients(key, value, query, dout, seen, stat, low, dkey, dvalue)

        blocks, arrays = [wide(K), wide(V), of_tile, of_both], [q.at[b], dy.at[b], limits.at[b], stats.at[b]]
        scan(step, heads * count, BUFFERS, blocks, arrays, None)

    buffers = wanted.of(key, value)
    gpu_tile.write(*zip(buffers, wanted.sums(run, K, V), strict=True))
    send(*((buffer, out.at[b, part(m), g]) for buffer, out in zip(buffers, outputs, strict=True)))
    sent(everywhere=True)


def key_gradients(q, k, v, limits, bounds, dy, stats) -> list[jax.Array]:
    """Of k and v. ``bounds`` are here the tiles of queries that each tile of keys meets."""
    (B, S, Hk, K), V = k.shape, v.shape[3]

    def made(wanted: Wanted) -> list[jax.Array]:
        return call(
            functools.partial(_key_kernel, q.shape[2] // Hk, wanted), "window_key_gradients",
            grid={"batch": B, "head": Hk, "tile": S // TILE},
            outputs=wanted.of((k.shape, k.dtype), (v.shape, v.dtype)),
            scratch=[shared(TILE, K), shared(TILE, V), shared(TILE, TILE)],
        )(q, k, v, limits, bounds, dy, stats)  # fmt: skip

    return gpu_tile.key_gradients(made, K, V)
