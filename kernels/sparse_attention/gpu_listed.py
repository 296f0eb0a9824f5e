"""What the GPU kernels of lists work on: queries in tiles, blocks in pieces, and which tiles of queries see a key."""

import jax
import jax.numpy as jnp

from ..gpu.mosaic import LOG2E, TILE
from . import gpu_lists
from .gpu_lists import Inverted, Lists
from .listed import Listed

LEAST = 8
"""The fewest rows that a copy may fill of a tile: queries that share a list, or keys of a block."""
PIECES = 256
"""The most pieces of a list, which a copy fetches at once."""


def unsupported(size: int, queries: int, n: int, R: int) -> str | None:
    """Why no kernel runs ``n`` blocks of ``size`` keys for so many queries of R heads, in words."""
    if size < LEAST:
        return f"a block must have at least {LEAST} keys, which a copy fetches at once, not {size}"
    if queries * R < LEAST:
        return (
            f"a list must serve at least {LEAST} rows of a tile of {TILE}, not {queries * R}: "
            f"{queries} queries of {R} heads that share it and its keys"
        )
    piece = piece_of(size)
    if n * -(-size // piece) > PIECES:
        return f"a list may name at most {PIECES * piece} keys where blocks have {size}, not {n * size}"
    return None


def piece_of(size: int) -> int:
    """Keys that one copy fetches: of those that fill a block with the fewest to spare the largest."""
    return min((64, 32, 16, 8), key=lambda piece: -(-size // piece) * piece)


class Layout:
    """Tiles of rows, of which each is a query of a head: of one list, filled up at its end."""

    def __init__(self, lists: Listed, q, k, v):
        self.B, self.T, self.G, self.R, _ = q.shape
        self.S, self.Hk = k.shape[1:3]
        self.lists, self.piece = lists, piece_of(lists.size)
        self.width = lists.queries * self.R
        self.each = -(-self.width // TILE)  # tiles of a list
        self.rows = TILE if self.each > 1 else -(-self.width // LEAST) * LEAST
        self.N = lists.start.shape[1]
        filled, lo = (0, 0), lists.lo
        lo = jnp.zeros_like(lists.hi) if lo is None else lo
        limits = [self._tiles(x[:, :, None, None], fill) for x, fill in ((lo, self.S), (lists.hi, -1))]
        limits = [
            jnp.pad(x[:, 0], (filled, filled, (0, TILE - self.rows)), constant_values=fill)
            for x, fill in zip(limits, (self.S, -1), strict=True)
        ]
        self.limits = jnp.stack(limits, 2)
        self.first, self.last = limits[0].min(-1), limits[1].max(-1)  # that any query of a tile sees
        self.k, self.v = self.keys(k), self.keys(v)

    def _tiles(self, x, fill: int = 0):
        """``[B, T, G, R or 1, ...]`` as ``[B, G, tiles, rows, ...]``."""
        c = self.lists.queries
        ends = lambda n: (0, n)  # noqa: E731
        x = jnp.broadcast_to(x, (*x.shape[:3], self.R, *x.shape[4:]))
        x = jnp.pad(x, (ends(0), ends(self.N * c - self.T), *[ends(0)] * (x.ndim - 2)), constant_values=fill)
        x = jnp.moveaxis(x.reshape(x.shape[0], self.N, c, *x.shape[2:]), 3, 1)
        x = x.reshape(*x.shape[:3], self.width, *x.shape[5:])
        late = ends(self.each * self.rows - self.width)
        x = jnp.pad(x, (*[ends(0)] * 3, late, *[ends(0)] * (x.ndim - 4)), constant_values=fill)
        return x.reshape(*x.shape[:2], self.N * self.each, self.rows, *x.shape[4:])

    def _wide(self, x):
        return jnp.pad(x, (*[(0, 0)] * (x.ndim - 1), (0, -x.shape[-1] % TILE)))

    def queries(self, x):
        """``[B, T, G, R, width]`` in tiles, whose width is whole tiles too."""
        return self._tiles(self._wide(x))

    def back(self, x, width: int):
        """The opposite."""
        x = x[..., :width].reshape(self.B, self.G, self.N, self.each * self.rows, width)[:, :, :, : self.width]
        x = x.reshape(self.B, self.G, self.N, self.lists.queries, self.R, width)
        return jnp.moveaxis(x, 1, 3).reshape(self.B, -1, self.G, self.R, width)[:, : self.T]

    def stats(self, x):
        """``[B, T, G, R, 2]`` as ``[B, G, tiles, 2, 64]``."""
        x = jnp.pad(self._tiles(x), (*[(0, 0)] * 3, (0, TILE - self.rows), (0, 0)))
        return x.swapaxes(3, 4)

    def keys(self, x):
        """``[B, S, Hk, width]`` in whole tiles."""
        return self._wide(jnp.pad(x, ((0, 0), (0, -self.S % TILE), (0, 0), (0, 0))))

    def _blocks(self):
        """Where each tile's blocks begin and end, ``[B, 1 or G, tiles, n]``, and the first key that it sees.

        What comes after all its queries is cut off.
        """
        of_tiles = lambda x: jnp.moveaxis(jnp.repeat(x, self.each, 1), 2, 1)  # noqa: E731
        first, last = self.first[:, None, :, None], self.last[:, None, :, None]
        start, end = of_tiles(self.lists.start), of_tiles(self.lists.end)
        return start, jnp.maximum(start, jnp.minimum(end, last + 1)), first

    def listed(self) -> Lists:
        """The pieces that each tile of queries fetches."""
        start, end, first = self._blocks()
        begin = start[..., None] + self.piece * jnp.arange(-(-self.lists.size // self.piece), dtype=start.dtype)
        stop = jnp.minimum(begin + self.piece, end[..., None])
        begin, stop = (x.reshape(*start.shape[:3], -1) for x in (begin, stop))
        used = (begin < stop) & (stop > first)
        order, fit = jnp.argsort(~used, axis=3, stable=True), TILE // self.piece
        late = (0, -order.shape[3] % 16)  # whole tiles, and bytes for each thread of a copy
        begin, stop = (
            jnp.pad(jnp.take_along_axis(jnp.where(used, x, 0), order, 3), (*[(0, 0)] * 3, late)) for x in (begin, stop)
        )
        steps = -(-jnp.sum(used, 3, dtype=jnp.int32) // fit)
        return Lists(jnp.stack([begin, stop], 3).astype(jnp.int32), steps)

    def inverted(self) -> Inverted:
        """The tiles of queries that each tile of keys is seen by."""
        start, end, first = self._blocks()
        M, tiles = self.k.shape[1] // TILE, self.N * self.each
        met = start[..., None] // TILE + jnp.arange((self.lists.size + TILE - 2) // TILE + 1, dtype=start.dtype)
        begin, stop = jnp.maximum(start[..., None], met * TILE), jnp.minimum(end[..., None], (met + 1) * TILE)
        met = jnp.where((begin < stop) & (stop > first[..., None]), met, M)
        whose = jnp.arange(self.G // self.Hk, dtype=jnp.int32)[:, None] * tiles + jnp.arange(tiles, dtype=jnp.int32)

        def by_head(x):
            x = jnp.broadcast_to(x, (self.B, self.G, *met.shape[2:]))
            return x.reshape(self.B, self.Hk, -1)

        of = jnp.broadcast_to(whose[..., None, None], (self.B, self.Hk, *whose.shape, *met.shape[3:]))
        met, *fields = by_head(met), of.reshape(self.B, self.Hk, -1), by_head(begin), by_head(stop)
        order = jnp.argsort(met, axis=2, stable=True)
        entries = jnp.stack([jnp.take_along_axis(x, order, 2) for x in fields], 2).astype(jnp.int32)
        count = jax.vmap(jax.vmap(lambda x: jnp.bincount(x, length=M + 1)))(met)
        starts = jnp.cumsum(count[..., :M], 2, dtype=jnp.int32)
        return Inverted(entries, jnp.pad(starts, ((0, 0), (0, 0), (1, 0))))


def forward(lists: Listed, q, k, v):
    """The softmax over what the lists name, and the logarithm of the denominator."""
    layout = Layout(lists, q, k, v)
    arrays = layout.queries(q), layout.k, layout.v, layout.limits
    y, lse = gpu_lists.forward(layout.piece, *arrays, layout.listed())
    return layout.back(y, v.shape[3]), layout.back(lse[:, :, :, : layout.rows, None], 1)[..., 0]


def backward(lists: Listed, q, k, v, dy, lse, delta):
    """The gradients of q, k and v. ``lse`` is that of all parts together, ``delta`` is ``sum(dy * y)``."""
    layout = Layout(lists, q, k, v)
    arrays = layout.queries(q), layout.k, layout.v, layout.limits
    rest = layout.queries(dy), layout.stats(jnp.stack([lse * LOG2E, delta], -1))
    dq = gpu_lists.query_gradients(layout.piece, *arrays, layout.listed(), *rest)
    dk, dv = gpu_lists.key_gradients(*arrays, layout.inverted(), *rest)
    dk, dv = (dx[:, : x.shape[1], :, : x.shape[3]] for dx, x in ((dk, k), (dv, v)))
    return layout.back(dq, q.shape[4]), dk, dv
