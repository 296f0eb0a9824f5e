"""Lists of blocks on a TPU: the keys of a head wait in vector memory, and each list picks its blocks there.

Blocks that a list does not name cost nothing, and a key leaves HBM once, however many lists name it: with blocks of 64
queries and 64 keys, to fetch what each list names would take longer than all else. All are causal, so that the keys of
a step's own tokens come with it; they are kept in float32, whose rows may be read from anywhere. A query meets all that
its list names at once, and nothing is rescaled. Where the keys do not fit, they are cut in spans.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..mosaic import LANES, LOG2E, call, dot
from .softmax import EMPTY

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
    def kept(self) -> int:
        """Keys in vector memory; a block may reach beyond a span."""
        return self.span * self.tokens + self.size

    def counts(self) -> list[int]:
        """Of how many entries a tile may be made, where a span has but some of a list."""
        group = LANES // math.gcd(self.size, LANES)  # which fills whole registers
        return sorted({min(-(-self.entries * part // (4 * group)) * group, self.entries) for part in range(1, 5)})


def positions(size: int, starts: list, ends: list) -> jax.Array:
    """Where the keys of a list stand, as a row; ``NEVER`` past a block's end."""
    rows = []
    for first in range(0, whole(len(starts) * size), LANES):
        lane = jax.lax.broadcasted_iota(jnp.int32, (1, LANES), 1) + first
        start, end = jnp.zeros_like(lane), jnp.zeros_like(lane)
        for entry in range(first // size, min(-(-(first + LANES) // size), len(starts))):
            begins = lane >= entry * size
            start, end = jnp.where(begins, starts[entry] - entry * size, start), jnp.where(begins, ends[entry], end)
        key = lane + start
        rows.append(jnp.where(key < end, key, NEVER))
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
        self.starts = [lists[n, 0, entry] for entry in range(used)]
        ends = [lists[n, 0, plan.entries + entry] for entry in range(used)]
        self.key = positions(plan.size, self.starts, ends)
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


def go_through(plan: Plan, refs: dict, work, outputs: list[tuple]) -> None:
    """``work(tiles)`` for the lists of a step, some at a time; where they name nothing ``outputs`` are filled."""
    span, step, groups = pl.program_id(2), pl.program_id(3), plan.lists // plan.together

    def some(first) -> None:
        indices = [first + i for i in range(plan.together)]
        make = lambda used: work([Tile(plan, n, span, refs, used) for n in indices])  # noqa: E731
        if plan.spans == 1:
            make(plan.entries)
            return
        most = functools.reduce(jnp.maximum, [refs["lists"][n, 0, 2 * plan.entries] for n in indices])
        counts = plan.counts()
        for least, used in zip([0, *counts[:-1]], counts, strict=True):
            pl.when((most > least) & (most <= used))(functools.partial(make, used))

        @pl.when(most == 0)
        def _():
            for n in indices:
                for ref, fill in outputs:
                    ref[n] = jnp.full(ref.shape[1:], fill, ref.dtype)

    def every() -> None:
        if groups == 1:
            some(0)
        else:
            jax.lax.fori_loop(0, groups, lambda g, _: some(g * plan.together), None)

    if plan.spans == 1 and not plan.before:
        every()
        return
    active = (step >= plan.before) & (step >= span * plan.span)
    pl.when(active)(every)

    @pl.when(~active)
    def _():
        for ref, fill in outputs:
            ref[...] = jnp.full(ref.shape, fill, ref.dtype)


def arrived(plan: Plan, keys: list[tuple], cleared: list) -> None:
    """The keys of a step's own tokens join those that wait, and gradients of these tokens begin at 0.

    Some rows that follow may be read before their own keys are there, but weigh nothing; they must hold numbers.
    """
    at = pl.program_id(3) - pl.program_id(2) * plan.span
    begin = pl.multiple_of(at * plan.tokens, 8)
    own, next_ = pl.ds(begin, plan.tokens), pl.ds(pl.multiple_of(begin + plan.tokens, 8), plan.size)

    def put() -> None:
        for ref, new in [*keys, *((ref, None) for ref in cleared)]:
            for column in range(ref.shape[0]):
                lanes = slice(column * LANES, (column + 1) * LANES)
                rows = jnp.zeros((plan.tokens, LANES), ref.dtype) if new is None else new[:, lanes].astype(ref.dtype)
                ref[column, own] = rows
                ref[column, next_] = jnp.zeros((plan.size, LANES), ref.dtype)

    if plan.spans == 1:
        put()
    else:
        pl.when((at >= 0) & (at < plan.span))(put)


def forward_kernel(plan: Plan, lists, q, k, v, *rest):
    """y, and the logarithm of the denominator."""
    *limits, y, lse, kept_k, kept_v = rest
    arrived(plan, [(kept_k, k), (kept_v, v)], [])

    def work(tiles: list[Tile]) -> None:
        weights = []
        for tile, s in [(tile, tile.scores()) for tile in tiles]:
            most = jnp.maximum(jnp.max(s, 1, keepdims=True), EMPTY)
            p = jnp.exp2(s - most)
            total = jnp.sum(p, 1, keepdims=True)
            total = jnp.where(total > 0, total, 1)
            lse[tile.n] = row(most / LOG2E + jnp.log(total))
            weights.append((tile, p.astype(q.dtype), total))
        for tile, p, total in weights:
            y[tile.n] = (dot(p, tile.v) / total).astype(y.dtype)

    go_through(plan, {"lists": lists, "q": q, "k": kept_k, "v": kept_v, "limits": limits}, work, [(y, 0), (lse, EMPTY)])


def backward_kernel(plan: Plan, lists, q, k, v, dy, lse, delta, *rest):
    """The gradients of q, k and v; those of keys gather in vector memory."""
    *limits, dq, dk, dv, kept_k, kept_v = rest
    arrived(plan, [(kept_k, k), (kept_v, v)], [dk, dv])

    def work(tiles: list[Tile]) -> None:
        found = []
        for tile, s, dp in [(tile, tile.scores(), dot(dy[tile.n], tile.v, (1, 1))) for tile in tiles]:
            p = jnp.exp2(s - column(lse[tile.n]) * LOG2E)
            found.append((tile, p.astype(q.dtype), (p * (dp - column(delta[tile.n]))).astype(q.dtype)))
        for tile, p, ds in found:
            dq[tile.n] = dot(ds, tile.k).astype(dq.dtype)
            tile.add(dk, dot(ds, tile.q, (0, 0)))
            tile.add(dv, dot(p, dy[tile.n], (0, 0)))

    go_through(plan, {"lists": lists, "q": q, "k": kept_k, "v": kept_v, "limits": limits}, work, [(dq, 0)])


class Specs:
    """The blocks of a grid step: of sequence b, key head g, span s, step n."""

    def __init__(self, plan: Plan, lists, keys: int):
        m, q = plan.lists, lambda n: jnp.maximum(n - plan.before, 0)
        key = lambda s, n: jnp.clip(n, s * plan.span, jnp.minimum((s + 1) * plan.span, plan.steps) - 1)  # noqa: E731
        own, each = lists.shape[1] > 1, keys
        self.lists = pl.BlockSpec(
            (None, None, None, m, 1, lists.shape[-1]),
            lambda b, g, s, n: (b, g if own else 0, s, q(n), 0, 0),
            memory_space=pltpu.SMEM,
        )
        self.queries = lambda x: pl.BlockSpec((None, None, m, *x.shape[3:]), lambda b, g, s, n: (b, g, q(n), 0, 0))
        self.keys = lambda x: pl.BlockSpec(
            (None, None, plan.tokens, x.shape[3]), lambda b, g, s, n: (b, g // each, key(s, n), 0)
        )
        self.limits = pl.BlockSpec((None, m, 1, plan.queries), lambda b, g, s, n: (b, q(n), 0, 0))
        self.parts = lambda x: pl.BlockSpec(
            (None, None, None, m, *x.shape[3:]), lambda b, g, s, n: (s, b, g, q(n), 0, 0)
        )
        self.spans = lambda columns: pl.BlockSpec(
            (None, None, None, columns, plan.kept, LANES), lambda b, g, s, n: (b, g, s, 0, 0, 0)
        )
        self.kept = lambda x: pltpu.VMEM((x.shape[3] // LANES, plan.kept, LANES), jnp.float32)


def forward(plan: Plan, lists, q, k, v, limits):
    """For each span y and the logarithm of the denominator.

    Args:
      plan: how all is cut.
      lists: ``[B, 1 or G, spans, N, 1, 2 n + 1]``: starts of blocks, counted in the span; ends; how many are used.
      q: ``[B, G, N, queries R, K]``.
      k: ``[B, Hk, S, K]``, S being all steps' tokens; the width of it and of v is a multiple of ``LANES``.
      v: the same.
      limits: the last key that each query sees and, if there are documents, the first: ``[B, N, 1, queries]``.
    """
    specs = Specs(plan, lists, q.shape[1] // k.shape[1])
    y = jax.ShapeDtypeStruct((*q.shape[:4], v.shape[3]), v.dtype)
    lse = jax.ShapeDtypeStruct((*q.shape[:3], 1, q.shape[3]), jnp.float32)
    return call(
        functools.partial(forward_kernel, plan),
        grid=(*q.shape[:2], plan.spans, plan.steps),
        sequential=2,
        in_specs=[specs.lists, specs.queries(q), specs.keys(k), specs.keys(v), *[specs.limits] * len(limits)],
        out_specs=[specs.parts(y), specs.parts(lse)],
        out_shape=[jax.ShapeDtypeStruct((plan.spans, *x.shape), x.dtype) for x in (y, lse)],
        scratch_shapes=[specs.kept(k), specs.kept(v)],
        name="lists_forward",
    )(lists, q, k, v, *limits)


def backward(plan: Plan, lists, q, k, v, limits, dy, lse, delta):
    """The gradients of q, for each span; and those of k and v, ``[B, G, spans, width / LANES, kept, LANES]``."""
    specs = Specs(plan, lists, q.shape[1] // k.shape[1])
    columns = [x.shape[3] // LANES for x in (k, v)]
    return call(
        functools.partial(backward_kernel, plan),
        grid=(*q.shape[:2], plan.spans, plan.steps),
        sequential=2,
        in_specs=[
            specs.lists, specs.queries(q), specs.keys(k), specs.keys(v),
            specs.queries(dy), specs.queries(lse), specs.queries(delta), *[specs.limits] * len(limits),
        ],
        out_specs=[specs.parts(q), *map(specs.spans, columns)],
        out_shape=[
            jax.ShapeDtypeStruct((plan.spans, *q.shape), q.dtype),
            *(jax.ShapeDtypeStruct((*q.shape[:2], plan.spans, n, plan.kept, LANES), jnp.float32) for n in columns),
        ],
        scratch_shapes=[specs.kept(k), specs.kept(v)],
        name="lists_backward",
    )(lists, q, k, v, dy, lse, delta, *limits)  # fmt: skip
