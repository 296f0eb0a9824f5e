"""TPU kernels of gla with a gate per key channel: a chunk of several heads a grid step.

Inside a chunk the decays are built from halves, as in ``kernels.decay``: tokens i of a right half and j of a left half
meet in the middle, ``exp`` of the gates from j to the middle times that from the middle to i, which scale the factors
of one matrix product. The products of gates grow level by level, so that nothing is subtracted. Gates are arranged like
keys; states are transposed: ``[V, K]``.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..tpu.decay import each, iotas
from ..tpu.mosaic import dot
from ..tpu.vector_decay import VectorDecays
from .tpu_blocks import Plan, Segments, read_segments

TILE = 8
"""Rows of a register: below it halves are told apart by masks, from it on by slices."""


def within_tiles(e: jax.Array) -> tuple[list[tuple[jax.Array, jax.Array]], jax.Array, jax.Array]:
    """The decays below a tile: for blocks of 1, 2 and 4 tokens, up to each token and after it; and for tiles."""
    C, K = e.shape
    upto, after, levels = e.reshape(C // TILE, TILE, K), jnp.ones((C // TILE, TILE, K), e.dtype), []
    row = jax.lax.broadcasted_iota(jnp.int32, upto.shape, 1)
    for b in (1, 2, 4):
        levels.append((upto.reshape(C, K), after.reshape(C, K)))
        left, right = (_last(upto, row, b, half) for half in (0, 1))
        on_right = row & b > 0
        upto, after = jnp.where(on_right, upto * left, upto), jnp.where(on_right, after, after * right)
    return levels, upto.reshape(C, K), after.reshape(C, K)


def _last(x: jax.Array, row: jax.Array, b: int, half: int) -> jax.Array:
    """The last row of the other half of a row's block of 2 b rows: of the left (0) or the right (1) half."""
    if b == 1:
        return pltpu.roll(x, 1 if half == 0 else TILE - 1, 1)
    last = [jnp.broadcast_to(x[:, n : n + 1], x.shape) for n in range(b - 1 + half * b, TILE, 2 * b)]
    return last[0] if len(last) == 1 else jnp.where(row >= 2 * b, last[1], last[0])


def halves(x: jax.Array, b: int, half: int) -> jax.Array:
    """The left (0) or right (1) halves of all blocks of 2 b rows, one below the other."""
    starts = range(half * b, x.shape[0], 2 * b)
    return jnp.concatenate([x[n : n + b] for n in starts], 0)


def interleave(left: jax.Array, right: jax.Array, b: int) -> jax.Array:
    """The inverse of ``halves``."""
    return jnp.concatenate([x[n : n + b] for n in range(0, left.shape[0], b) for x in (left, right)], 0)


def spread(x: jax.Array, b: int) -> jax.Array:
    """The last row of each block of b rows, in every row of it."""
    return jnp.concatenate(
        [jnp.broadcast_to(x[n + b - 1 : n + b], (b, x.shape[1])) for n in range(0, x.shape[0], b)], 0
    )


def distances(C: int, cut: Segments | None) -> dict[int, jax.Array]:
    """What tells at which level tokens i (rows) and j meet: the highest bit in which they differ, as ``i ^ j``.

    It is C where they never do. At 0: of all tokens. At b: of the right and the left halves of blocks of 2 b tokens.
    """
    rows, half = _indices(C), _indices(C // 2)
    meet = rows[0] >= rows[1]
    found = {0: jnp.where(meet if cut is None else meet & (cut.column[:, :1] == cut.row), rows[0] ^ rows[1], C)}
    apart = half[0] ^ half[1]
    for b in _sizes(C):
        if cut is None:
            found[b] = apart
        else:
            same = halves(cut.column, b, 1)[:, :1] == halves(cut.column, b, 0).T[:1]
            found[b] = jnp.where(same, apart, C)
    return found


def _indices(n: int) -> tuple[jax.Array, jax.Array]:
    return jax.lax.broadcasted_iota(jnp.int32, (n, n), 0), jax.lax.broadcasted_iota(jnp.int32, (n, n), 1)


def _sizes(C: int) -> list[int]:
    """The sizes of halves from a tile on."""
    return [b for b in (8, 16, 32, 64, 128) if b < C]


class Factors(NamedTuple):
    """Of one head, what meets at each level, and what meets the state; rounded to the type of the products."""

    tiles: list[tuple[jax.Array, jax.Array]]
    """Below a tile, of all tokens: at distance 0, and for blocks of 1, 2 and 4 tokens."""
    halves: list[tuple[jax.Array, jax.Array]]
    """From a tile on, of the right and of the left halves."""
    q: jax.Array
    k: jax.Array
    through: jax.Array
    """Of the state, in float32."""


def factors(plan: Plan, low: jnp.dtype, cut: Segments | None, q, k, g) -> Factors:
    """Scales queries and keys by the decays of every level."""
    C = plan.C
    levels, upto, after = within_tiles(jnp.exp(g))
    qf, kf = q.astype(jnp.float32), k.astype(jnp.float32)
    q, k = q.astype(low), k.astype(low)
    tiles = [(q, k), ((qf * levels[0][0]).astype(low), k)]
    tiles += [((qf * right).astype(low), (kf * left).astype(low)) for right, left in levels[1:]]
    larger = []
    for b in _sizes(C):
        upto_left, upto_right = halves(upto, b, 0), halves(upto, b, 1)
        after_left, after_right = halves(after, b, 0), halves(after, b, 1)
        larger.append(((halves(qf, b, 1) * upto_right).astype(low), (halves(kf, b, 0) * after_left).astype(low)))
        upto_right, after_left = upto_right * spread(upto_left, b), after_left * spread(upto_right, b)
        upto, after = interleave(upto_left, upto_right, b), interleave(after_left, after_right, b)
    through = upto[C - 1 :]
    if cut is not None:
        upto = jnp.where(cut.column[:, :1] == cut.before, upto, 0)
        after = jnp.where(cut.column[:, :1] == cut.last, after, 0)
        through = jnp.where(cut.before == cut.last, through, 0)
    return Factors(tiles, larger, (qf * upto).astype(low), (kf * after).astype(low), through)


def weights(plan: Plan, apart: dict[int, jax.Array], packed: bool, factors: Factors) -> list[jax.Array]:
    """What each token takes of the values: within its tile, and of the left half of each larger block."""
    products = [dot(*pair, (1, 1)) for pair in factors.tiles]
    larger = [dot(*pair, (1, 1)) for pair in factors.halves]
    scores = products[0]
    for b, across in zip((1, 2, 4), products[1:], strict=True):
        scores = jnp.where(apart[0] >= b, across, scores)
    taken = [jnp.where(apart[0] < TILE, scores, 0)]
    for b, across in zip(_sizes(plan.C), larger, strict=True):
        taken.append(jnp.where(apart[b] < b, across, 0) if 2 * b < plan.C or packed else across)
    return [x.astype(factors.q.dtype) for x in taken]


def read_and_write(plan: Plan, factors: Factors, weights: list[jax.Array], v, state) -> tuple[jax.Array, jax.Array]:
    """``y`` and the leaving state."""
    v = v.astype(factors.q.dtype)
    y = dot(weights[0], v, (1, 0)) + dot(factors.q, state.astype(v.dtype), (1, 1))
    for b, weight in zip(_sizes(plan.C), weights[1:], strict=True):
        read = dot(weight, halves(v, b, 0), (1, 0))
        y = interleave(halves(y, b, 0), halves(y, b, 1) + read, b)
    return plan.scale * y, factors.through * state + dot(v, factors.k, (0, 0))


def forward_kernel(plan: Plan, keep: bool, packed: bool, *refs) -> None:
    """One chunk of a block of heads."""
    q, k, v, g, first, *refs = refs
    ids, (y, last, *kept) = (refs[:2], refs[2:]) if packed else ((), refs)

    @pl.when(pl.program_id(2) == 0)
    def _():
        last[...] = first[...]

    cut = read_segments(ids)
    apart = distances(plan.C, cut)
    keys = [n for n, group in enumerate(plan.groups()) for _ in group]
    # Step by step over all heads: while one waits for the matrix unit, others compute.
    found = [factors(plan, q.dtype, cut, q[0, n], k[0, n], g[0, h]) for h, n in enumerate(keys)]
    taken = [weights(plan, apart, packed, one) for one in found]
    for h, (one, weight) in enumerate(zip(found, taken, strict=True)):
        state = last[0, h]
        if keep:
            kept[0][0, h, 0] = state.astype(q.dtype)
        out, leaving = read_and_write(plan, one, weight, v[plan.value(h)], state)
        y[plan.value(h)], last[0, h] = out.astype(y.dtype), leaving


def backward_kernel(plan: Plan, packed: bool, *refs) -> None:
    """One chunk of a block of heads, the last chunk first.

    Decays are products of gates: with the cotangents of their logarithms, which only add up, those of the gates are
    sums of queries and keys times their cotangents.
    """
    q, k, v, g, dy, kept, dlast, *refs = refs
    ids, (dq, dk, dv, dg, dstate) = (refs[:2], refs[2:]) if packed else ((), refs)
    low = q.dtype

    @pl.when(pl.program_id(2) == 0)
    def _():
        dstate[...] = dlast[...]

    cut, links = read_segments(ids), None
    if cut is not None:
        number = cut.column[:, :1]
        links = number == cut.row, number == cut.before, number == cut.last, cut.before == cut.last
    heads = [(h, n) for n, group in enumerate(plan.groups()) for h in group]
    queries, keys = [q[0, n] for _h, n in heads], [k[0, n] for _h, n in heads]
    values, states = [v[plan.value(h)] for h, _n in heads], [kept[0, h, 0] for h, _n in heads]
    dreads = [(plan.scale * dy[plan.value(h)].astype(jnp.float32)).astype(low) for h, _n in heads]
    leaving = [dstate[0, h] for h, _n in heads]
    lowered = each(lambda x: x.astype(low), leaving)

    decay = VectorDecays([g[0, h] for h, _n in heads], links)
    enters = [enter for enter, _ in decay.enters]
    (scores,) = decay.query_scores(queries, [keys])
    dvalues = each(lambda s, d: dot(s.astype(low), d, (0, 0)), scores, dreads)
    written = each(lambda k, leave: (k * leave).astype(low), keys, decay.leave)
    dvalues = each(lambda d, w, ds: d + dot(w, ds, (1, 1)), dvalues, written, lowered)
    row, column = iotas(plan.C)
    dscores = each(lambda d, v: jnp.where(row > column, dot(d, v, (1, 1)), 0), dreads, values)
    dqs, dks = decay.query_scores_vjp(dscores, queries, keys)
    dqs = each(lambda d, dy, s, enter: d + dot(dy, s) * enter, dqs, dreads, states, enters)
    dwritten = each(lambda v, ds, leave: dot(v, ds) * leave, values, lowered, decay.leave)
    read = each(lambda q, enter: (q * enter).astype(low), queries, enters)
    passing = each(jnp.multiply, leaving, decay.total)
    total = each(lambda s, p: jnp.sum(s.astype(jnp.float32) * p, 0, keepdims=True), states, passing)
    moved = each(lambda q, dq, k, dk: q * dq - k * dk, queries, dqs, keys, dks)
    gates = decay.gate_of(moved, each(jnp.multiply, keys, dwritten), total, low)
    own = each(lambda d, v: jnp.sum(d.astype(jnp.float32) * v, 1, keepdims=True), dreads, values)
    entered = each(lambda p, d, x: p + dot(d, x, (0, 0)), passing, dreads, read)
    dqs = each(lambda d, own, k: d + own * k, dqs, own, keys)
    dks = each(lambda d, w, own, q: d + w + own * q, dks, dwritten, own, queries)
    for h, _n in heads:
        dv[plan.value(h)], dg[0, h], dstate[0, h] = dvalues[h].astype(dv.dtype), gates[h], entered[h]
    for n, group in enumerate(plan.groups()):
        for ref, found in ((dq, dqs), (dk, dks)):
            ref[0, n] = functools.reduce(jnp.add, [found[h] for h in group]).astype(ref.dtype)
