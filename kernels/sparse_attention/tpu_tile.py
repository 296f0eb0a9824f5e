"""A list of blocks and its queries in a kernel: what it names is picked from the keys that wait in vector memory."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ..tpu.mosaic import LANES, LOG2E, dot

MASKED = -jnp.inf
NEVER = 2**30
"""Where a key stands that no query sees."""


def whole(n: int) -> int:
    """Filled up to whole registers."""
    return -(-n // LANES) * LANES


class Plan(NamedTuple):
    """How lists are cut. Hashable: the kernels are compiled for it."""

    queries: int
    """Tokens that share a list, ..."""
    heads: int
    """... each of so many query heads."""
    lists: int
    """Lists of a step, ..."""
    together: int
    """... so many of them side by side, so that there are independent products to be scheduled together."""
    entries: int
    """Blocks of a list, ..."""
    size: int
    """... of so many keys, as they are read."""
    before: int
    """Steps before the first that has queries."""
    steps: int
    """Steps of a sequence, ..."""
    spans: int
    """... which is gone through once for each of the spans of keys, ..."""
    span: int
    """... of so many steps."""

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.lists * self.queries

    @property
    def rows(self) -> int:
        """Keys of a span: blocks are read within it."""
        return max(self.span * self.tokens, self.size)

    @property
    def kept(self) -> int:
        """Keys in vector memory: some before whose arrival others are read hold zeros."""
        return self.span * self.tokens + self.size

    def counts(self) -> list[int]:
        """Of how many entries a tile may be made, where a span has but some of a list."""
        group = LANES // math.gcd(self.size, LANES)  # which fills whole registers
        return sorted({min(-(-self.entries * part // (4 * group)) * group, self.entries) for part in range(1, 5)})


def positions(size: int, starts: list, begins: list, ends: list) -> jax.Array:
    """Where the keys of a list stand, as a row; ``NEVER`` before a block's begin and past its end."""
    rows = []
    for first in range(0, whole(len(starts) * size), LANES):
        lane = jax.lax.broadcasted_iota(jnp.int32, (1, LANES), 1) + first
        start, begin, end = (jnp.zeros_like(lane) for _ in range(3))
        for entry in range(first // size, min(-(-(first + LANES) // size), len(starts))):
            own = lane >= entry * size
            start, begin = jnp.where(own, starts[entry] - entry * size, start), jnp.where(own, begins[entry], begin)
            end = jnp.where(own, ends[entry], end)
        key = lane + start
        rows.append(jnp.where((key >= begin) & (key < end), key, NEVER))
    return jnp.concatenate(rows, 1)


def column(row: jax.Array, each: int = 1) -> jax.Array:
    """A row ``[1, n]`` as ``[n each, 1]``, every entry so many times."""
    shape = row.shape[1] * each, row.shape[1]
    index, lane = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
    own = (index >= lane * each) & (index < (lane + 1) * each)
    return jnp.sum(jnp.where(own, row, jnp.zeros_like(row)), 1, keepdims=True)


def row(column: jax.Array) -> jax.Array:
    """The opposite."""
    index, lane = (jax.lax.broadcasted_iota(jnp.int32, (column.shape[0],) * 2, axis) for axis in (0, 1))
    return jnp.sum(jnp.where(index == lane, column, 0.0), 0, keepdims=True)


class Tile:
    """The queries of list n of a step, and the first ``used`` blocks that it names."""

    def __init__(self, plan: Plan, n, span, refs: dict, used: int):
        lists = refs["lists"]
        self.n, self.dtype, self.size = n, refs["q"].dtype, plan.size
        begins, ends = ([lists[n, 0, first + entry] for entry in range(used)] for first in (0, plan.entries))
        self.starts = [jnp.minimum(begin, plan.rows - plan.size) for begin in begins]
        self.key = positions(plan.size, self.starts, begins, ends)
        self.limits = [column(limit[n] - span * (plan.span * plan.tokens), plan.heads) for limit in refs["limits"]]
        self.q = refs["q"][n]
        self.k, self.v = (self.picked(refs[name]) for name in ("k", "v"))

    def picked(self, ref) -> jax.Array:
        """The blocks, one below the other."""
        length = len(self.starts) * self.size
        rest = [jnp.zeros((whole(length) - length, LANES), ref.dtype)] * (length % LANES > 0)

        def of(column: int) -> jax.Array:
            blocks = [ref[column, pl.ds(start, self.size)] for start in self.starts]
            return jnp.concatenate([*blocks, *rest], 0).astype(self.dtype)

        return jnp.concatenate([of(column) for column in range(ref.shape[0])], 1)

    def add(self, ref, x: jax.Array) -> None:
        """Adds to the blocks. Those that a list names twice get both."""
        for entry, start in enumerate(self.starts):
            rows = slice(entry * self.size, (entry + 1) * self.size)
            for column in range(ref.shape[0]):
                at = column, pl.ds(start, self.size)
                ref[at] = ref[at] + x[rows, column * LANES : (column + 1) * LANES]

    def scores(self) -> jax.Array:
        """To the base 2."""
        q = (self.q.astype(jnp.float32) * LOG2E).astype(self.dtype)
        s = dot(q, self.k, (1, 1))
        hi, *lo = self.limits
        seen = functools.reduce(jnp.logical_and, [self.key >= x for x in lo], self.key <= hi)
        return jnp.where(seen, s, MASKED)
