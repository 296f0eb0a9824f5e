"""TPU kernels of gla with a gate per key channel: a chunk of several heads a grid step.

Inside a chunk the decays are built from halves, as in ``kernels.decay``: tokens i of a right half and j of a left half
meet in the middle, ``exp`` of the gates from j to the middle times that from the middle to i, which scale the factors
of one matrix product. The products of gates grow level by level, so that nothing is subtracted. The backward pass runs
a chunk again and differentiates it. Gates are arranged like keys; states are transposed: ``[V, K]``.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..mosaic import dot
from .tpu_blocks import Plan, Segments, read_segments

TILE = 8
"""Rows of a register: below it halves are told apart by masks, from it on by slices."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(a: jax.Array, b: jax.Array, contract: tuple[int, int]) -> jax.Array:
    """``dot``, whose gradients too are products of factors rounded to the inputs' type."""
    return dot(a, b, contract)


def _product_forward(a, b, contract):
    return dot(a, b, contract), (a, b)


def _product_backward(contract, factors, d):
    a, b = factors
    d, (m, n) = d.astype(a.dtype), contract
    da = dot(d, b, (1, 1 - n)) if m == 1 else dot(b, d, (1 - n, 1))
    db = dot(d, a, (0, 1 - m)) if n == 1 else dot(a, d, (1 - m, 0))
    return da.astype(a.dtype), db.astype(b.dtype)


product.defvjp(_product_forward, _product_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def rotate(x: jax.Array, rows: int) -> jax.Array:
    """The rows of each tile, moved down by ``rows``; axis 1 of ``[tiles, TILE, K]``."""
    return pltpu.roll(x, rows % TILE, 1)


rotate.defvjp(lambda x, rows: (rotate(x, rows), None), lambda rows, _, d: (rotate(d, -rows),))


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
        return rotate(x, 1 if half == 0 else -1)
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
    products = [product(*pair, (1, 1)) for pair in factors.tiles]
    larger = [product(*pair, (1, 1)) for pair in factors.halves]
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
    y = product(weights[0], v, (1, 0)) + product(factors.q, state.astype(v.dtype), (1, 1))
    for b, weight in zip(_sizes(plan.C), weights[1:], strict=True):
        read = product(weight, halves(v, b, 0), (1, 0))
        y = interleave(halves(y, b, 0), halves(y, b, 1) + read, b)
    return plan.scale * y, factors.through * state + product(v, factors.k, (0, 0))


def chunk(plan: Plan, low: jnp.dtype, apart: dict[int, jax.Array], cut: Segments | None, q, k, v, g, state):
    """All of it for one head."""
    found = factors(plan, low, cut, q, k, g)
    return read_and_write(plan, found, weights(plan, apart, cut is not None, found), v, state)


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
    """One chunk of a block of heads, the last chunk first."""
    q, k, v, g, dy, kept, dlast, *refs = refs
    ids, (dq, dk, dv, dg, dstate) = (refs[:2], refs[2:]) if packed else ((), refs)

    @pl.when(pl.program_id(2) == 0)
    def _():
        dstate[...] = dlast[...]

    cut = read_segments(ids)
    run = functools.partial(chunk, plan, q.dtype, distances(plan.C, cut), cut)
    for n, group in enumerate(plan.groups()):
        dq_all, dk_all = [jnp.zeros((plan.C, plan.K), jnp.float32)] * 2
        for h in group:
            inputs = (q[0, n], k[0, n], v[plan.value(h)], g[0, h], kept[0, h, 0])
            vjp = jax.vjp(run, *(x.astype(jnp.float32) for x in inputs))[1]
            dq_one, dk_one, dv_one, dg_one, dstate_one = vjp((dy[plan.value(h)].astype(jnp.float32), dstate[0, h]))
            dg[0, h], dstate[0, h] = dg_one, dstate_one
            dq_all, dk_all = dq_all + dq_one, dk_all + dk_one
            dv[plan.value(h)] = dv_one.astype(dv.dtype)
        dq[0, n] = dq_all.astype(dq.dtype)
        dk[0, n] = dk_all.astype(dk.dtype)
