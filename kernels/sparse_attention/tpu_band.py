"""A ``Band`` on a TPU: all keys that a tile of queries sees at once, so that nothing is rescaled.

A grid step has a block of queries and the few blocks of keys that end with theirs; in it, each tile of queries meets
the keys that it may see and no others. Scores are kept as ``[keys, queries]``: what belongs to a query is then a row,
and its maximum and sum take no step across lanes.
"""

import functools
import operator
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..tpu.mosaic import LANES, LOG2E, call, dot
from .softmax import EMPTY

MASKED = -jnp.inf


class Plan(NamedTuple):
    """How a band is cut. Hashable: the kernels are compiled for it."""

    C: int
    """Tokens of a block, ..."""
    tile: int
    """... of a tile of queries (going back: of keys)."""
    blocks: int
    """Blocks of queries."""
    offset: int
    """Blocks of keys before the first of queries."""
    reach: int
    """How far before itself a query sees."""
    heads: int
    """Query heads that share a key head."""
    plain: bool
    """Whether every query sees all keys within reach; else each has limits of its own."""

    @property
    def span(self) -> int:
        """Blocks of keys that a block of queries meets: its own and those before."""
        return -(-self.reach // self.C) + 1

    @property
    def before(self) -> int:
        """Keys that a tile meets before its own."""
        return -(-self.reach // LANES) * LANES

    def tiles(self) -> range:
        """Where the tiles of a block begin."""
        return range(0, self.C, self.tile)

    def around(self, start: int, stop: int) -> Iterator[tuple[int, slice]]:
        """The rows from start to stop, counted from this block's beginning, as a block and rows of it."""
        for block in range(start // self.C, -(-stop // self.C)):
            begin = block * self.C
            yield block, slice(max(start, begin) - begin, min(stop - begin, self.C))

    def partial(self, key: int, query: int, queries: int) -> bool:
        """Whether some of LANES keys from ``key`` are not seen by some of the queries from ``query``."""
        return key + LANES - 1 > query or query + queries - 1 - key > self.reach


def seen(plan: Plan, key, query: int, shape: tuple[int, ...], limits) -> jax.Array | None:
    """Which of the keys from ``key`` the queries see; None: all. ``limits`` are rows, if there are any."""
    index = jax.lax.broadcasted_iota(jnp.int32, shape, 0)
    if limits:
        lo, hi = limits
        return (index + key >= lo) & (index + key <= hi)
    if not plan.partial(key, query, shape[1]):
        return None
    away = jax.lax.broadcasted_iota(jnp.int32, shape, 1) - index + (query - key)
    late, far = key + LANES - 1 > query, query + shape[1] - 1 - key > plan.reach
    if late and far:
        return (away >= 0) & (away <= plan.reach)
    return away >= 0 if late else away <= plan.reach


def forward_kernel(plan: Plan, *refs):
    """y, and the logarithm of the denominator."""
    query, *rest = refs
    keys, values, rest = rest[: plan.span], rest[plan.span : 2 * plan.span], rest[2 * plan.span :]
    *limits, y, lse = rest
    n = pl.program_id(2)

    def together(refs, start):
        around = plan.around(start - plan.before, start + plan.tile)
        return jnp.concatenate([refs[-block][0, 0, rows] for block, rows in around], 0)

    def scores(start):
        at = slice(start, start + plan.tile)
        q = (query[0, 0, at].astype(jnp.float32) * LOG2E).astype(query.dtype)
        return dot(together(keys, start), q, (1, 1))

    def softmax(start, s):
        at = slice(start, start + plan.tile)
        lim = [ref[0, :, at] for ref in limits]
        groups, row, most = [], 0, EMPTY
        for block, rows in plan.around(start - plan.before, start + plan.tile):
            absent = 0.0
            if plan.plain and plan.offset + block < 0:
                absent = jnp.where(n + plan.offset + block < 0, -EMPTY, 0.0)
            parts = []
            for first in range(rows.start, rows.stop, LANES):
                part = s[row : row + LANES]
                key = block * plan.C + first
                mask = seen(plan, key if plan.plain else key + (n + plan.offset) * plan.C, start, part.shape, lim)
                parts.append(part if mask is None else jnp.where(mask, part, MASKED))
                row += LANES
            top = jnp.max(functools.reduce(jnp.maximum, parts), 0, keepdims=True) - absent
            most = jnp.maximum(most, top)
            groups.append((parts, absent))
        ps = [jnp.exp2(part - (most + absent)) for parts, absent in groups for part in parts]
        total = jnp.sum(functools.reduce(operator.add, ps), 0, keepdims=True)
        lse[0, 0, :, at] = most / LOG2E + jnp.log(jnp.where(total > 0, total, 1))
        return jnp.concatenate([x.astype(query.dtype) for x in ps], 0), jnp.where(total > 0, total, 1)

    def read(start, p, total):
        at = slice(start, start + plan.tile)
        y[0, 0, at] = (dot(together(values, start), p, (0, 0)) / total).T.astype(y.dtype)

    # Step by step over the tiles, so that independent products and exponentials are at hand to be scheduled together.
    tiles = plan.tiles()
    made = [scores(start) for start in tiles]
    weights = [softmax(start, s) for start, s in zip(tiles, made, strict=True)]
    for start, (p, total) in zip(tiles, weights, strict=True):
        read(start, p, total)


def forward(plan: Plan, q, k, v, limits):
    """q ``[B, H, T, K]``, k and v ``[B, Hk, S, ...]``."""
    (B, H, T, K), V = q.shape, v.shape[-1]
    C = plan.C
    block = lambda j: lambda b, h, n: (b, h // plan.heads, jnp.maximum(n + plan.offset - j, 0), 0)  # noqa: E731
    own = lambda b, h, n: (b, h, n, 0)  # noqa: E731
    specs = [pl.BlockSpec((1, 1, C, K), own)]
    specs += [pl.BlockSpec((1, 1, C, K), block(j)) for j in range(plan.span)]
    specs += [pl.BlockSpec((1, 1, C, V), block(j)) for j in range(plan.span)]
    specs += [pl.BlockSpec((1, 1, C), lambda b, h, n: (b, 0, n)) for _ in limits]
    return call(
        functools.partial(forward_kernel, plan),
        grid=(B, H, plan.blocks),
        in_specs=specs,
        out_specs=[pl.BlockSpec((1, 1, C, V), own), pl.BlockSpec((1, 1, 1, C), lambda b, h, n: (b, h, 0, n))],
        out_shape=[jax.ShapeDtypeStruct((B, H, T, V), v.dtype), jax.ShapeDtypeStruct((B, H, 1, T), jnp.float32)],
        name="window_forward",
    )(q, *[k] * plan.span, *[v] * plan.span, *limits)


def backward_kernel(plan: Plan, *refs):
    """The gradients of q, k and v: a block of keys meets the queries from its own block on.

    The gradient of a block of queries is complete when its own keys are done; until then ``late`` holds the sums.
    """
    key, value, *rest = refs
    take = lambda: [rest.pop(0) for _ in range(plan.span)]  # noqa: E731
    queries, dys, lses, deltas = take(), take(), take(), take()
    limits = [] if plan.plain else [take(), take()]
    dquery, dkey, dvalue, *late = rest
    m = pl.program_id(2)
    join = jnp.concatenate

    @pl.when(m == 0)
    def _():
        for ref in late:
            ref[...] = jnp.zeros_like(ref)

    def weigh(start, block, rows):
        """The weights of a tile of keys for a tile of queries, and the gradients of its scores."""
        at, begin = slice(start, start + plan.tile), block * plan.C + rows.start
        q = (queries[block][0, 0, rows].astype(jnp.float32) * (LOG2E)).astype(key.dtype)
        s = dot(key[0, 0, at], q, (1, 1))
        dp = dot(value[0, 0, at], dys[block][0, 0, rows], (1, 1))
        log, lim = lses[block][0, 0, :, rows] * LOG2E, [refs[block][0, :, rows] for refs in limits]
        if block or plan.offset:  # where there is no such block of queries, nothing has weight
            index = m + block - plan.offset
            log = log + jnp.where((index < 0) | (index >= plan.blocks), -EMPTY, 0.0)
        parts = []
        for row in range(0, plan.tile, LANES):
            part, position = s[row : row + LANES], start + row
            mask = seen(plan, position if plan.plain else position + m * plan.C, begin, part.shape, lim)
            parts.append(part if mask is None else jnp.where(mask, part, MASKED))
        p = jnp.exp2(join(parts, 0) - log)
        return p.astype(key.dtype), (p * (dp - deltas[block][0, 0, :, rows])).astype(key.dtype)

    of_queries: dict[tuple[int, int, int], list] = {}
    for start in plan.tiles():
        at = slice(start, start + plan.tile)
        around = [
            (block, slice(first, min(first + plan.tile, rows.stop)))
            for block, rows in plan.around(start, start + plan.tile + plan.before)
            for first in range(rows.start, rows.stop, plan.tile)
        ]
        ps, dss = zip(*(weigh(start, *where) for where in around), strict=True)
        together = lambda refs, around=around: join([refs[block][0, 0, rows] for block, rows in around], 0)  # noqa: E731
        dvalue[0, 0, at] = dot(join(ps, 1), together(dys)).astype(dvalue.dtype)
        dkey[0, 0, at] = dot(join(dss, 1), together(queries)).astype(dkey.dtype)
        for (block, rows), ds in zip(around, dss, strict=True):
            of_queries.setdefault((block, rows.start, rows.stop), []).append((ds, key[0, 0, at]))
    for (block, first, stop), found in of_queries.items():
        ds, keys = (join(xs, 0) for xs in zip(*found, strict=True))
        dq = dot(ds, keys, (0, 0))
        if block < plan.span - 1:
            dq = dq + late[0][block, first:stop]
        if block:
            late[0][block - 1, first:stop] = dq
        else:
            dquery[0, 0, first:stop] = dq.astype(dquery.dtype)


def backward(plan: Plan, q, k, v, limits, dy, lse, delta):
    """The gradients of q, k and v; those of k and v have a head for every query head."""
    (B, H, _, K), V, S, C, span = q.shape, v.shape[-1], k.shape[2], plan.C, range(plan.span)
    at = lambda m, j: jnp.clip(m - plan.offset + j, 0, plan.blocks - 1)  # noqa: E731
    tokens = lambda width: [pl.BlockSpec((1, 1, C, width), lambda b, h, m, j=j: (b, h, at(m, j), 0)) for j in span]  # noqa: E731
    rows = [pl.BlockSpec((1, 1, 1, C), lambda b, h, m, j=j: (b, h, 0, at(m, j))) for j in span]
    bounds = [pl.BlockSpec((1, 1, C), lambda b, h, m, j=j: (b, 0, at(m, j))) for j in span]
    shared = lambda width: pl.BlockSpec((1, 1, C, width), lambda b, h, m: (b, h // plan.heads, m, 0))  # noqa: E731
    own = lambda width: pl.BlockSpec((1, 1, C, width), lambda b, h, m: (b, h, m, 0))  # noqa: E731
    summed = k.dtype if plan.heads == 1 else jnp.float32
    many = [x for array in (q, dy, lse, delta, *limits) for x in [array] * plan.span]
    return call(
        functools.partial(backward_kernel, plan),
        grid=(B, H, S // C),
        in_specs=[shared(K), shared(V), *tokens(K), *tokens(V), *rows, *rows, *bounds * len(limits)],
        out_specs=[tokens(K)[0], own(K), own(V)],
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            *(jax.ShapeDtypeStruct((B, H, S, width), summed) for width in (K, V)),
        ],
        scratch_shapes=[pltpu.VMEM((plan.span - 1, C, K), jnp.float32)] * (plan.span > 1),
        name="window_backward",
    )(k, v, *many)
