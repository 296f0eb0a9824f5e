"""Blocks of keys that tiles of queries list: the pieces to be fetched, and which tiles of queries a key is seen by."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from ..gpu.mosaic import TILE
from .gpu_lists import GROUP, Inverted, Lists

Ends = Int[Array, "B #G tiles n"]
"""Of n blocks for each tile; those that end where they start are none."""


def wide(x):
    """The width in whole tiles."""
    return jnp.pad(x, (*[(0, 0)] * (x.ndim - 1), (0, -x.shape[-1] % TILE)))


def keys(x):
    """``[B, S, Hk, width]`` in whole tiles."""
    return wide(jnp.pad(x, ((0, 0), (0, -x.shape[1] % TILE), (0, 0), (0, 0))))


def piece_of(size: int) -> int:
    """Keys that one copy fetches: of those that fill a block with the fewest to spare the largest."""
    return min((64, 32, 16, 8), key=lambda piece: -(-size // piece) * piece)


def firsts(which: Int[Array, "B H n"], M: int) -> Int[Array, "B H first"]:
    """Where each of M begins among entries that are sorted by it, and where the last of them ends."""
    count = jax.vmap(jax.vmap(lambda x: jnp.bincount(x, length=M + 1)))(which)
    return jnp.pad(jnp.cumsum(count[..., :M], 2, dtype=jnp.int32), ((0, 0), (0, 0), (1, 0)))


def pieces_of(size: int) -> int:
    """Copies that hold a block, wherever it begins."""
    return -(-(size + GROUP - 1) // piece_of(size))


def fetched(start: Ends, end: Ends, size: int) -> Lists:
    """The pieces of blocks of at most so many keys."""
    piece = piece_of(size)
    copied = start[..., None] // GROUP * GROUP + piece * jnp.arange(pieces_of(size), dtype=start.dtype)
    begin, stop = jnp.maximum(copied, start[..., None]), jnp.minimum(copied + piece, end[..., None])
    begin, stop = (x.reshape(*start.shape[:3], -1) for x in (begin, stop))
    used = begin < stop
    order = jnp.argsort(~used, axis=3, stable=True)
    late = (0, -order.shape[3] % 16)  # whole tiles, and bytes for each thread of a copy
    both = [jnp.take_along_axis(jnp.where(used, x, 0), order, 3) for x in (begin, stop)]
    both = [jnp.pad(x, (*[(0, 0)] * 3, late)) for x in both]
    steps = -(-jnp.sum(used, 3, dtype=jnp.int32) // (TILE // piece))
    return Lists(jnp.stack(both, 3).astype(jnp.int32), steps)


def inverted(start: Ends, end: Ends, size: int, heads: tuple[int, int], M: int) -> Inverted:
    """For each of M tiles of keys the tiles of queries that list some of it, of G heads on Hk of keys."""
    (B, _, tiles, _), (G, Hk) = start.shape, heads
    met = start[..., None] // TILE + jnp.arange((size + TILE - 2) // TILE + 1, dtype=start.dtype)
    begin, stop = jnp.maximum(start[..., None], met * TILE), jnp.minimum(end[..., None], (met + 1) * TILE)
    met = jnp.where(begin < stop, met, M)
    whose = jnp.arange(G // Hk, dtype=jnp.int32)[:, None] * tiles + jnp.arange(tiles, dtype=jnp.int32)
    whose = jnp.broadcast_to(whose[..., None, None], (B, Hk, *whose.shape, *met.shape[3:])).reshape(B, Hk, -1)
    met, begin, stop = (jnp.broadcast_to(x, (B, G, *met.shape[2:])).reshape(B, Hk, -1) for x in (met, begin, stop))
    order = jnp.argsort(met, axis=2, stable=True)
    entries = jnp.stack([jnp.take_along_axis(x, order, 2) for x in (whose, begin, stop)], 2)
    return Inverted(entries.astype(jnp.int32), firsts(met, M))
