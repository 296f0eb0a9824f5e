"""TPU kernels of gla with one gate per token and head: a chunk of several heads a grid step.

Gates are ``[B, blocks, heads of a block, T]``. With D the decays inside a chunk, from exact sums of gates:

    y = (q k^T * D) v + enter (q S)        S' = through S + (leave k)^T v

All of it transposed, states ``[V, K]`` too: then what belongs to a token that reads is a row, and only the gates of
those that are read have to be brought into columns. What a head does with its decays is ``mlstm``'s too.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ..tpu.mosaic import LANES, dot, exact_sums, running_sums, triangle
from .tpu_blocks import Plan, read_segments
from .tpu_decays import Decays


def weights(plan: Plan, decay: Decays, q, k) -> list[list[jax.Array]]:
    """Of each head and tile of tokens, which are rows, what those from there on read of them.

    For all heads before anything else: while those of one head are made, the products of others fill the matrix unit.
    """
    found = []
    for n, group in enumerate(plan.groups()):
        products = score_products(plan, q, k, n)
        for h in group:
            since, tiles = decay.columns(h), zip(plan.tiles(), products, strict=True)
            found.append([product * decay.within(h, j, since) for j, product in tiles])
    return found


def whole(tiles: list[jax.Array]) -> jax.Array:
    """Tiles of rows that end in the last column, below each other, with zeros before them."""
    C = tiles[0].shape[1]
    before = lambda x: [jnp.zeros((x.shape[0], C - x.shape[1]), x.dtype)] if x.shape[1] < C else []  # noqa: E731
    return jnp.concatenate([jnp.concatenate([*before(x), x], 1) for x in tiles], 0)


def forward_kernel(plan: Plan, keep: bool, packed: bool, *refs) -> None:
    """One chunk of a block of heads."""
    q, k, v, g, first, *refs = refs
    ids, (y, last, *kept) = (refs[:2], refs[2:]) if packed else ((), refs)
    low = q.dtype

    @pl.when(pl.program_id(2) == 0)
    def _():
        last[...] = first[...]

    sums = running_sums(g[0, 0])
    decay = Decays(sums, sums, None, read_segments(ids), plan.scale)
    scores = [whole([x.astype(low) for x in tiles]) for tiles in weights(plan, decay, q, k)]
    for n, group in enumerate(plan.groups()):
        for h in group:
            one, state, values = slice(h, h + 1), last[0, h], v[0, h]
            if keep:
                kept[0][0, h, 0] = state.astype(low)
            out = dot(values, scores[h]) + dot(state.astype(low), q[0, n]) * decay.enter[one]
            y[0, h] = out.astype(y.dtype)
            new = (values.astype(jnp.float32) * decay.leave[one]).astype(low)
            last[0, h] = decay.through[one] * state + dot(new, k[0, n], (1, 1))


def score_products(plan: Plan, q, k, n: int) -> list[jax.Array]:
    """The products of each tile of keys with the queries from there on, of key head n."""
    return [dot(k[0, n, :, j], q[0, n, :, j.start :], (0, 0)) for j in plan.tiles()]


class Ones(NamedTuple):
    """One more row of the values, all ones: its part of the state, and the cotangents."""

    state: jax.Array
    """``[K, LANES]``, equal lanes."""
    dstate: jax.Array
    """``[K, LANES]``, equal lanes."""
    dy: jax.Array
    """``[1, C]``."""


class Scores(NamedTuple):
    """Of one head, by tiles of tokens that are read, which are rows; columns are those from there on."""

    weights: list[jax.Array]
    cotangents: list[jax.Array]
    """Of the products of keys and queries."""
    ends: jax.Array
    """Cotangents of the logarithms of decays, by the token that reads, ``[1, C]``."""
    begins: jax.Array
    """The same by the token that is read, ``[C, 1]``."""


def dscores(plan: Plan, decay: Decays, h: int, products: list[jax.Array], v, dy, ones: jax.Array | None) -> Scores:
    """The scores of head h, and their cotangents; ``ones`` is that of one more row of the values."""
    since, weights, cotangents, ends, begins = decay.columns(h), [], [], [], []
    row, col = (jax.lax.broadcasted_iota(jnp.int32, (LANES, LANES), axis) for axis in (0, 1))
    for j, product in zip(plan.tiles(), products, strict=True):
        later, within = slice(j.start, plan.C), decay.within(h, j, since)
        found = dot(v[:, j], dy[:, later], (0, 0))
        found = (found if ones is None else found + ones[:, later]) * within
        weights.append((product * within).astype(v.dtype))
        cotangents.append(found.astype(v.dtype))
        both = product * found
        pieces = [both[:, m : m + LANES] for m in range(0, both.shape[1], LANES)]
        pieces[0] = jnp.where(row == col, 0, pieces[0])  # a token's own product does not depend on gates
        ends.append(after(j, jnp.concatenate([jnp.sum(x, 0, keepdims=True) for x in pieces], 1)))
        begins.append(jnp.sum(sum(pieces), 1, keepdims=True))
    return Scores(weights, cotangents, functools.reduce(jnp.add, ends), jnp.concatenate(begins, 0))


def after(j: slice, x: jax.Array) -> jax.Array:
    """What begins with a tile, with zeros before it."""
    return jnp.concatenate([jnp.zeros((x.shape[0], j.start), x.dtype), x], 1) if j.start else x


def wide(x: jax.Array, C: int) -> jax.Array:
    """``[K, LANES]`` with equal lanes as ``[K, C]``."""
    return jnp.concatenate([x] * (C // LANES), 1)


class Gradients(NamedTuple):
    """The gradients of one head in a chunk."""

    q: jax.Array
    """``[K, C]``."""
    k: jax.Array
    """``[K, C]``."""
    v: jax.Array
    """``[V, C]``."""
    ends: jax.Array
    """Of the logarithms of decays from the entering state, by the token that reads, ``[1, C]``."""
    leave: jax.Array
    """The same by the token that writes into the leaving state, ``[1, C]``."""
    through: jax.Array
    """From state to state, ``[1, 1]``."""


def gradients(
    plan: Plan, decay: Decays, h: int, scores: Scores, q, k, v, dy, state, ds, ones: Ones | None
) -> Gradients:
    """Those of what head h did, but for the state's; ``ds`` is the leaving state's."""
    C, low, one = plan.C, state.dtype, slice(h, h + 1)
    enter, leave = decay.enter[one], decay.leave[one]
    qf, kf, lowered = q.astype(jnp.float32), k.astype(jnp.float32), ds.astype(low)
    dq_read, dk_write = dot(state, dy, (0, 0)), dot(lowered, v, (0, 0))
    passed = jnp.sum(state.astype(jnp.float32) * ds, keepdims=True)
    if ones is not None:
        dq_read = dq_read + wide(ones.state, C) * ones.dy
        dk_write = dk_write + wide(ones.dstate, C)
        passed = passed + jnp.sum(ones.state[:, :1] * ones.dstate[:, :1], keepdims=True)
    dq_read, dk_write = dq_read * enter, dk_write * leave
    dq, dk, dv = [dq_read], [], []
    for j, weights, cotangents in zip(plan.tiles(), scores.weights, scores.cotangents, strict=True):
        later = slice(j.start, C)
        dq.append(after(j, dot(k[:, j], cotangents)))
        dk.append(dot(q[:, later], cotangents, (1, 1)))
        dv.append(dot(dy[:, later], weights, (1, 1)))
    return Gradients(
        q=functools.reduce(jnp.add, dq),
        k=jnp.concatenate(dk, 1) + dk_write,
        v=jnp.concatenate(dv, 1) + dot(lowered, k) * leave,
        ends=jnp.sum(qf * dq_read, 0, keepdims=True),
        leave=jnp.sum(kf * dk_write, 0, keepdims=True),
        through=decay.through[one] * passed,
    )


class Columns:
    """``[C, 1]`` of each head, put together in lanes, and rows again: one transpose for all."""

    def __init__(self, C: int):
        self.lane, self.found = jax.lax.broadcasted_iota(jnp.int32, (C, LANES), 1), jnp.zeros((C, LANES), jnp.float32)

    def put(self, h: int, x: jax.Array) -> None:
        """Those of head h."""
        self.found = jnp.where(self.lane == h, x, self.found)

    def rows(self, n: int) -> jax.Array:
        """``[n, C]``."""
        return self.found.T[:n]


def rows_of(xs: list[jax.Array], C: int, n: int) -> jax.Array:
    """Rows ``[1, C]``, or ``[1, 1]`` to be spread, as ``[n, C]`` with zeros below."""
    short = [jnp.zeros((n - len(xs), C), jnp.float32)] if n > len(xs) else []
    return jnp.concatenate([*(jnp.broadcast_to(x, (1, C)) for x in xs), *short], 0)


def gate_gradients(read: jax.Array, leave: jax.Array, through: jax.Array) -> jax.Array:
    """Those of gates ``[heads, C]`` from those of the logarithms of decays that end at, begin at, and pass a token."""
    C = read.shape[1]
    return (
        exact_sums(read, triangle(C, C, lambda i, t: i >= t))
        + exact_sums(leave, triangle(C, C, lambda j, t: j < t))
        + through
    )


def backward_kernel(plan: Plan, packed: bool, *refs) -> None:
    """One chunk of a block of heads, the last chunk first."""
    q, k, v, g, dy, kept, dlast, *refs = refs
    ids, (dq, dk, dv, dg, dstate) = (refs[:2], refs[2:]) if packed else ((), refs)
    C, K, count = plan.C, plan.K, g.shape[2]

    @pl.when(pl.program_id(2) == 0)
    def _():
        dstate[...] = dlast[...]

    sums = running_sums(g[0, 0])
    decay = Decays(sums, sums, None, read_segments(ids), plan.scale)
    ends, begins, leave, through = [], Columns(C), [], []
    heads = [(h, n) for n, group in enumerate(plan.groups()) for h in group]
    products = [score_products(plan, q, k, n) for n in range(plan.keys)]
    scores = [dscores(plan, decay, h, products[n], v[0, h], dy[0, h], None) for h, n in heads]
    for n, group in enumerate(plan.groups()):
        dq_all, dk_all = [jnp.zeros((K, C), jnp.float32)] * 2
        for h in group:
            one, ds = slice(h, h + 1), dstate[0, h]
            d = gradients(plan, decay, h, scores[h], q[0, n], k[0, n], v[0, h], dy[0, h], kept[0, h, 0], ds, None)
            read = (dy[0, h].astype(jnp.float32) * decay.enter[one]).astype(q.dtype)
            dstate[0, h] = decay.through[one] * ds + dot(read, q[0, n], (1, 1))
            dv[0, h] = d.v.astype(dv.dtype)
            dq_all, dk_all = dq_all + d.q, dk_all + d.k
            ends.append(d.ends + scores[h].ends)
            begins.put(h, scores[h].begins)
            leave.append(d.leave)
            through.append(d.through)
        dq[0, n], dk[0, n] = dq_all.astype(dq.dtype), dk_all.astype(dk.dtype)
    rows = functools.partial(rows_of, C=C, n=count)
    dg[0, 0] = gate_gradients(rows(ends) - begins.rows(count), rows(leave), rows(through))
