"""Lists that too few queries share to fill a tile: queries are gathered by what they list, and what they get is merged.

Every pair of a query and a block is a row of its own. Pairs are sorted by blocks, so that the rows of a tile name keys
at one place, and each row sees its own interval of them. A query's softmax over its list is that over its pairs.
"""

import jax.numpy as jnp
from einops import rearrange

from ..gpu.mosaic import TILE
from . import gpu_blocks
from .gpu_lists import Inverted, Lists
from .listed import Listed
from .softmax import EMPTY, merge

LEAST = TILE
"""The fewest keys of a block for which queries are gathered: rows of q that are copied grow with the blocks listed."""


class Layout:
    """Tiles of pairs for each query head, each of one cell of as many keys as a block: blocks begin within it."""

    def __init__(self, lists: Listed, q, k, v):
        (self.B, self.T, self.G, self.R, _), (self.S, self.Hk) = q.shape, k.shape[1:3]
        self.size, cells = lists.size, -(-self.S // lists.size)
        self.k, self.v = gpu_blocks.keys(k), gpu_blocks.keys(v)
        each = lambda x: jnp.moveaxis(jnp.repeat(x, lists.queries, 1)[:, : self.T], 2, 1)  # noqa: E731
        start, end = each(lists.start), each(lists.end)
        if start.shape[1] > 1:
            start, end = (jnp.repeat(x, self.R, 1) for x in (start, end))
        first, last = start, jnp.minimum(end - 1, lists.hi[:, None, :, None])
        if lists.lo is not None:
            first = jnp.maximum(first, lists.lo[:, None, :, None])
        used = first <= last
        heads, self.n = start.shape[1], start.shape[3]
        pairs = self.T * self.n
        self.tiles = pairs // TILE + cells
        flat = lambda x: x.reshape(self.B, heads, pairs)  # noqa: E731
        cell = flat(jnp.where(used, start // self.size, cells))
        order = jnp.argsort(cell, axis=2, stable=True)
        before = gpu_blocks.firsts(cell, cells)
        count = jnp.diff(before, axis=2)
        tile = jnp.pad(jnp.cumsum(-(-count // TILE), 2, dtype=jnp.int32), ((0, 0), (0, 0), (1, 0)))
        rank = jnp.argsort(order, axis=2).astype(jnp.int32) - jnp.take_along_axis(before, cell, 2)
        slots = self.tiles * TILE
        slot = jnp.where(flat(used), jnp.take_along_axis(tile, cell, 2) * TILE + rank, slots)
        rows = jnp.arange(self.B)[:, None, None], jnp.arange(heads)[:, None]
        pair = jnp.zeros((self.B, heads, slots), jnp.int32).at[*rows, slot].set(jnp.arange(pairs), mode="drop")
        lo = jnp.full_like(pair, self.S).at[*rows, slot].set(flat(first), mode="drop")
        hi = jnp.full_like(pair, -1).at[*rows, slot].set(flat(last), mode="drop")
        self.slot, self.token = slot, pair // self.n
        lo, hi = (x.reshape(self.B, heads, self.tiles, TILE) for x in (lo, hi))
        self.limits = jnp.stack([lo, hi], 3)
        some = jnp.any(lo <= hi, 3)
        begin = jnp.where(some, lo.min(3), 0)[..., None]
        self.ends = begin, jnp.maximum(begin, hi.max(3)[..., None] + 1)

    @property
    def length(self) -> int:
        """The most keys that a tile lists."""
        return 2 * self.size - 1

    def _rows(self, x):
        """``[B, T, G, R, ...]`` in tiles, ``[B, H, tiles, 64, ...]``."""
        x = rearrange(x, "B T G R ... -> B (G R) T ...")
        index = self.token.reshape(*self.token.shape, *[1] * (x.ndim - 3))
        return jnp.take_along_axis(x, index, 2).reshape(*x.shape[:2], self.tiles, TILE, *x.shape[3:])

    def queries(self, x):
        """``[B, T, G, R, width]`` in tiles, whose width is whole tiles too."""
        return self._rows(gpu_blocks.wide(x))

    def stats(self, x):
        """``[B, T, G, R, 2]`` as ``[B, H, tiles, 2, 64]``."""
        return self._rows(x).swapaxes(3, 4)

    def _pairs(self, x, fill: float):
        """``[B, H, tiles, 64, ...]`` as a list of ``[B, T, G, R, ...]`` for each block listed."""
        x = x.reshape(*x.shape[:2], -1, *x.shape[4:])
        index = self.slot.reshape(*self.slot.shape, *[1] * (x.ndim - 3))
        used = index < x.shape[2]
        x = jnp.where(used, jnp.take_along_axis(x, jnp.where(used, index, 0), 2).astype(jnp.float32), fill)
        x = rearrange(x, "B (G R) (T n) ... -> n B T G R ...", G=self.G, n=self.n)
        return list(x)

    def merged(self, y, lse, width: int):
        """The softmax over all pairs of a query."""
        return merge(list(zip(self._pairs(y[..., :width], 0.0), self._pairs(lse, EMPTY), strict=True)))

    def summed(self, dq, width: int):
        """The gradient of the queries."""
        return sum(self._pairs(dq[..., :width], 0.0))

    def listed(self) -> Lists:
        """The pieces that each tile of queries fetches."""
        return gpu_blocks.fetched(*self.ends, self.length)

    def inverted(self) -> Inverted:
        """The tiles of queries that each tile of keys is seen by."""
        heads = self.G * self.R, self.Hk
        return gpu_blocks.inverted(*self.ends, self.length, heads, self.k.shape[1] // TILE)
