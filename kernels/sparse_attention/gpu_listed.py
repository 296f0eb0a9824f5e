"""Lists of blocks by the GPU kernels: queries that share a list in tiles of rows, and those of few gathered."""

import jax.numpy as jnp

from ..gpu.mosaic import LOG2E, TILE
from . import gpu_blocks, gpu_gathered, gpu_lists
from .gpu_lists import Inverted, Lists
from .listed import Listed

LEAST = gpu_lists.GROUP
"""The fewest rows that a copy may fill of a tile: queries that share a list, or keys of a block."""
PIECES = 256
"""The most pieces of a list, which a copy fetches at once."""


def gathers(size: int, queries: int, R: int) -> bool:
    """Whether queries must be gathered to fill tiles, and are."""
    return queries * R < LEAST and size >= gpu_gathered.LEAST


def unsupported(size: int, queries: int, n: int, R: int) -> str | None:
    """Why no kernel runs ``n`` blocks of ``size`` keys for so many queries of R heads, in words."""
    if size < LEAST:
        return f"a block must have at least {LEAST} keys, which a copy fetches at once, not {size}"
    gathered = gathers(size, queries, R)
    if not gathered and queries * R < LEAST:
        return (
            f"a list of blocks of fewer than {gpu_gathered.LEAST} keys must serve at least {LEAST} rows of a tile of "
            f"{TILE}, not {queries * R}: {queries} queries of {R} heads that share it and its keys"
        )
    n, longest = (1, 2 * size) if gathered else (n, size)  # of a tile
    if (pieces := n * gpu_blocks.pieces_of(longest)) > PIECES:
        return f"a tile may list at most {PIECES} pieces of {gpu_blocks.piece_of(longest)} keys, not {pieces}"
    return None


class Layout:
    """Tiles of rows, of which each is a query of a head: of one list, filled up at its end."""

    def __init__(self, lists: Listed, q, k, v):
        self.B, self.T, self.G, self.R, _ = q.shape
        self.S, self.Hk = k.shape[1:3]
        self.lists = lists
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
        self.limits = jnp.stack(limits, 2)[:, None]
        first, last = (x[:, None, :, None] for x in (limits[0].min(-1), limits[1].max(-1)))
        start, end = (jnp.moveaxis(jnp.repeat(x, self.each, 1), 2, 1) for x in (lists.start, lists.end))
        start = jnp.maximum(start, jnp.where(start < end, first, start))
        self.ends = start, jnp.maximum(start, jnp.minimum(end, last + 1))  # without what no query of a tile sees
        self.k, self.v = gpu_blocks.keys(k), gpu_blocks.keys(v)

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

    @property
    def length(self) -> int:
        """The most keys of a block."""
        return self.lists.size

    def queries(self, x):
        """``[B, T, G, R, width]`` in tiles, whose width is whole tiles too."""
        return self._tiles(gpu_blocks.wide(x))

    def summed(self, x, width: int):
        """The opposite: a query has one row."""
        x = x[..., :width].reshape(self.B, self.G, self.N, self.each * self.rows, width)[:, :, :, : self.width]
        x = x.reshape(self.B, self.G, self.N, self.lists.queries, self.R, width)
        return jnp.moveaxis(x, 1, 3).reshape(self.B, -1, self.G, self.R, width)[:, : self.T]

    def stats(self, x):
        """``[B, T, G, R, 2]`` as ``[B, G, tiles, 2, 64]``."""
        x = jnp.pad(self._tiles(x), (*[(0, 0)] * 3, (0, TILE - self.rows), (0, 0)))
        return x.swapaxes(3, 4)

    def merged(self, y, lse, width: int):
        """The softmax of the queries, and the logarithm of its denominator."""
        return self.summed(y, width), self.summed(lse[:, :, :, : self.rows, None], 1)[..., 0]

    def listed(self) -> Lists:
        """The pieces that each tile of queries fetches."""
        return gpu_blocks.fetched(*self.ends, self.length)

    def inverted(self) -> Inverted:
        """The tiles of queries that each tile of keys is seen by."""
        return gpu_blocks.inverted(*self.ends, self.length, (self.G, self.Hk), self.k.shape[1] // TILE)


def layout(lists: Listed, q, k, v) -> Layout | gpu_gathered.Layout:
    """Queries as the kernels take them."""
    return (gpu_gathered.Layout if gathers(lists.size, lists.queries, q.shape[3]) else Layout)(lists, q, k, v)


def forward(lists: Listed, q, k, v):
    """The softmax over what the lists name, and the logarithm of the denominator."""
    rows = layout(lists, q, k, v)
    arrays = rows.queries(q), rows.k, rows.v, rows.limits
    y, lse = gpu_lists.forward(gpu_blocks.piece_of(rows.length), *arrays, rows.listed())
    return rows.merged(y, lse, v.shape[3])


def backward(lists: Listed, q, k, v, dy, lse, delta):
    """The gradients of q, k and v. ``lse`` is that of all parts together, ``delta`` is ``sum(dy * y)``."""
    rows = layout(lists, q, k, v)
    arrays = rows.queries(q), rows.k, rows.v, rows.limits
    rest = rows.queries(dy), rows.stats(jnp.stack([lse * LOG2E, delta], -1))
    dq = gpu_lists.query_gradients(gpu_blocks.piece_of(rows.length), *arrays, rows.listed(), *rest)
    dk, dv = gpu_lists.key_gradients(*arrays, rows.inverted(), *rest)
    dk, dv = (dx[:, : x.shape[1], :, : x.shape[3]] for dx, x in ((dk, k), (dv, v)))
    return rows.summed(dq, q.shape[4]), dk, dv
