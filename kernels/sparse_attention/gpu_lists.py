"""Lists of blocks on a Hopper GPU: a tile of queries fetches what its list names, a tile of keys what names it.

Blocks of keys are cut in pieces, of which one or several fill a tile of 64 keys, and a copy fetches one. For the
gradients of keys the lists are inverted before: no two blocks of the card add to one place, and sums go in order.

Arrays of queries are ``[B, G, tiles, rows, width]``, those of keys ``[B, S, Hk, width]``. Limits are the first and the
last key that each query sees, ``[B, 1 or G, tiles, 2, 64]``.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from ..gpu.mosaic import (
    TILE,
    call,
    fetch,
    indices,
    part,
    put,
    scan_listed,
    send,
    sent,
    shared,
    spread_integers,
    sums,
    zeros,
)  # fmt: skip
from . import gpu_tile
from .gpu_tile import Wanted

BUFFERS = 2
"""How many tiles are in shared memory."""
GROUP = 8
"""Rows of keys that the card's layout keeps together: a copy of keys begins at a multiple. Of one that does not, zeros
would arrive past the first group, which the interpreter does not know."""


class Lists(NamedTuple):
    """What each tile of queries sees."""

    pieces: jax.Array
    """Where pieces begin and end, ``[B, 1 or G, tiles, 2, n]``; those that are none come last, and are empty."""
    steps: jax.Array
    """How many tiles the others fill, ``[B, 1 or G, tiles]``."""


class Inverted(NamedTuple):
    """By what each tile of keys is seen."""

    entries: jax.Array
    """Which tile of queries, of all heads that share the keys, and where its block begins and ends: ``[B, Hk, 3, E]``,
    by tiles of keys."""
    first: jax.Array
    """The first entry of each tile of keys, and where those of the last end: ``[B, Hk, M + 1]``."""


def _place() -> list[jax.Array]:
    return [lax.axis_index(name) for name in ("batch", "head", "tile")]


def _head(h, x):
    """The head of an array that may have one for all."""
    return h if x.shape[1] > 1 else 0


class _Listed:
    """The keys that the list of this block's queries names."""

    def __init__(self, size: int, k, v, lists: Lists, listed, kept: tuple, heads: int):
        b, h, n = _place()
        self.size, self.listed, self.kept = size, listed, kept
        self.own = b, _head(h, lists.steps), n
        self.steps = lists.steps[self.own]
        self.pieces = lists.pieces.at[self.own]
        self.of = lambda ref, at: ref.at[b, pl.ds(at, size), lax.div(h, heads)]
        self.keys, self.last = (k, v), k.shape[1] - size

    def _piece(self, n, i: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Where the copy of piece i of tile n begins, and it begins and ends: no copy goes beyond the keys."""
        at = n * (TILE // self.size) + i
        begin = self.listed[0, at]
        return jnp.minimum(lax.div(begin, GROUP) * GROUP, self.last), begin, self.listed[1, at]

    def copies(self, n, slot) -> list:
        """Of the keys and values of tile n."""
        return [
            (self.of(ref, self._piece(n, i)[0]), kept.at[slot, pl.ds(i * self.size, self.size)])
            for i in range(TILE // self.size)
            for ref, kept in zip(self.keys, self.kept, strict=True)
        ]

    def seen(self, n, lo, hi) -> jax.Array:
        """Which keys of tile n each query sees."""
        column = indices()[1]

        def of(i: int) -> list[jax.Array]:
            at, begin, end = self._piece(n, i)
            return [column + (at - i * self.size), jnp.full_like(column, begin), jnp.full_like(column, end)]

        key, begin, end = of(0)
        for i in range(1, TILE // self.size):
            found = zip(of(i), (key, begin, end), strict=True)
            key, begin, end = (jnp.where(column >= i * self.size, new, old) for new, old in found)
        return (jnp.maximum(lo, begin) <= key) & (key <= jnp.minimum(hi, end - 1))

    def scan(self, step, carry):
        """``step(n, k, v, carry)`` over the tiles that the pieces fill."""
        return scan_listed(
            lambda n, slot, carry: step(n, *(kept.at[slot] for kept in self.kept), carry),
            self.steps, BUFFERS, lambda n: n, self.copies, 2 * TILE // self.size, carry,
        )  # fmt: skip


def _forward_kernel(size: int, heads: int, q, k, v, limits, pieces, steps, y, lse, *scratch) -> None:
    query, limit, listed, *kept, low, out, log = scratch
    b, h, n = _place()
    keys, rows = _Listed(size, k, v, Lists(pieces, steps), listed, tuple(kept), heads), pl.ds(0, q.shape[3])
    fetch((q.at[b, h, n], query.at[rows]), (limits.at[b, _head(h, limits), n], limit), (keys.pieces, listed))
    lo, hi = (spread_integers(limit.at[i], 0) for i in range(2))

    def step(n, k, v, carry):
        return gpu_tile.attend(query, k, v, keys.seen(n, lo, hi), low, carry)

    gpu_tile.attended(keys.scan(step, gpu_tile.nothing(v.shape[3])), out, log)
    send((out.at[rows], y.at[b, h, n]), (log, lse.at[b, h, n]))
    sent(everywhere=True)


def _of_lists(lists: Lists, K: int, V: int) -> list:
    """Shared memory for limits, a list, and the keys and values that it names."""
    integers = functools.partial(shared, dtype=jnp.int32)
    return [integers(2, TILE), integers(*lists.pieces.shape[3:]), *(shared(BUFFERS, TILE, width) for width in (K, V))]


def forward(size: int, q, k, v, limits, lists: Lists) -> list[jax.Array]:
    """The softmax over what is seen, and the logarithm of its denominator, ``[B, G, tiles, 64]``."""
    (B, G, N, rows, K), V = q.shape, v.shape[3]
    return call(
        functools.partial(_forward_kernel, size, G // k.shape[2]), "lists_forward",
        grid={"batch": B, "head": G, "tile": N},
        outputs=[((B, G, N, rows, V), v.dtype), ((B, G, N, TILE), jnp.float32)],
        scratch=[shared(TILE, K), *_of_lists(lists, K, V), shared(TILE, TILE), shared(TILE, V),
                 shared(TILE, dtype=jnp.float32)],
    )(q, k, v, limits, *lists)  # fmt: skip


def _query_kernel(size: int, heads: int, q, k, v, limits, pieces, steps, dy, stats, dq, *scratch) -> None:
    query, limit, listed, *kept, low, dout, stat = scratch
    b, h, n = _place()
    keys, rows = _Listed(size, k, v, Lists(pieces, steps), listed, tuple(kept), heads), pl.ds(0, q.shape[3])
    fetch((q.at[b, h, n], query.at[rows]), (dy.at[b, h, n], dout.at[rows]))
    fetch((limits.at[b, _head(h, limits), n], limit), (keys.pieces, listed), (stats.at[b, h, n], stat))
    lo, hi = (spread_integers(limit.at[i], 0) for i in range(2))
    of_queries = gpu_tile.query_stats(stat)

    def run(dquery):
        def step(n, k, v, _):
            gpu_tile.add_query_gradient(query, dout, k, v, keys.seen(n, lo, hi), of_queries, low, dquery)

        keys.scan(step, None)

    gpu_tile.write((query, sums(run, q.shape[4] // TILE)))
    send((query.at[rows], dq.at[b, h, n]))
    sent(everywhere=True)


def query_gradients(size: int, q, k, v, limits, lists: Lists, dy, stats) -> jax.Array:
    """Of q. ``stats``, ``[B, G, tiles, 2, 64]``: to the base 2 the logarithm of the denominator, and ``sum(dy y)``."""
    (B, G, N, _, K), V = q.shape, v.shape[3]
    (dq,) = call(
        functools.partial(_query_kernel, size, G // k.shape[2]), "lists_query_gradients",
        grid={"batch": B, "head": G, "tile": N}, outputs=[(q.shape, q.dtype)],
        scratch=[shared(TILE, K), *_of_lists(lists, K, V), shared(TILE, TILE), shared(TILE, V),
                 shared(2, TILE, dtype=jnp.float32)],
    )(q, k, v, limits, *lists, dy, stats)  # fmt: skip
    return dq


def _key_kernel(heads: int, wanted: Wanted, q, k, v, limits, entries, first, dy, stats, *rest) -> None:
    *outputs, key, value, queries, douts, limit, stat, low = rest
    b, g, m = _place()
    fetch((k.at[b, part(m), g], key), *[(v.at[b, part(m), g], value)] * wanted.keys)
    (N, width), start = q.shape[2:4], first[b, g, m]
    rows = pl.ds(0, width)
    if width < TILE:  # what no copy fills is a factor, though it weighs nothing
        for ref in (queries, douts):
            for slot in range(BUFFERS):
                for c in range(ref.shape[2] // TILE):
                    put(ref.at[slot, :, part(c)], zeros())

    def read(i):
        at = jnp.minimum(start + i, entries.shape[3] - 1)
        return tuple(entries[b, g, field, at] for field in range(3))

    def copies(entry, slot) -> list:
        head, n = g * heads + lax.div(entry[0], N), lax.rem(entry[0], N)
        return [
            (q.at[b, head, n], queries.at[slot, rows]), (dy.at[b, head, n], douts.at[slot, rows]),
            (limits.at[b, _head(head, limits), n], limit.at[slot]), (stats.at[b, head, n], stat.at[slot]),
        ]  # fmt: skip

    def run(dkey, dvalue):
        def step(entry, slot, _):
            lo, hi = (spread_integers(limit.at[slot, i], 1) for i in range(2))
            token, (_, begin, end) = indices()[0] + m * TILE, entry
            seen = (jnp.maximum(lo, begin) <= token) & (token <= jnp.minimum(hi, end - 1))
            of_slot = queries.at[slot], douts.at[slot], seen, stat.at[slot]
            gpu_tile.add_key_gradients(key, value, *of_slot, low, dkey, dvalue)

        scan_listed(step, first[b, g, m + 1] - start, BUFFERS, read, copies, 4, None)

    buffers = wanted.of(key, value)
    gpu_tile.write(*zip(buffers, wanted.sums(run, q.shape[4], v.shape[3]), strict=True))
    send(*((buffer, out.at[b, part(m), g]) for buffer, out in zip(buffers, outputs, strict=True)))
    sent(everywhere=True)


def key_gradients(q, k, v, limits, inverted: Inverted, dy, stats) -> list[jax.Array]:
    """Of k and v."""
    (B, S, Hk, K), V = k.shape, v.shape[3]

    def made(wanted: Wanted) -> list[jax.Array]:
        return call(
            functools.partial(_key_kernel, q.shape[1] // Hk, wanted), "lists_key_gradients",
            grid={"batch": B, "head": Hk, "tile": S // TILE},
            outputs=wanted.of((k.shape, k.dtype), (v.shape, v.dtype)),
            scratch=[shared(TILE, K), shared(TILE, V), shared(BUFFERS, TILE, K), shared(BUFFERS, TILE, V),
                     shared(BUFFERS, 2, TILE, dtype=jnp.int32), shared(BUFFERS, 2, TILE, dtype=jnp.float32),
                     shared(TILE, TILE)],
        )(q, k, v, limits, *inverted, dy, stats)  # fmt: skip

    return gpu_tile.key_gradients(made, K, V)
