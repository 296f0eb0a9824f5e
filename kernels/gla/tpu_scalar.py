"""TPU kernels of gla with one gate per token and head: a chunk of several heads a grid step.

Gates are ``[B, blocks, heads of a block, T]``. With D the decays inside a chunk, from exact sums of gates:

    y = (q k^T * D) v + enter (q S)        S' = through S + (leave k)^T v

All of it transposed, states ``[V, K]`` too: then what belongs to a token that reads is a row, and only the gates of
those that are read have to be brought into columns. What a head does with its decays is ``mlstm``'s too.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ..tpu.mosaic import LANES, dot, exact_sums, running_sums, triangle
from .tpu_blocks import Plan, read_segments
from .tpu_decays import Decays

Tokens = Callable[[slice], jax.Array]
"""Reads some tokens of a block."""
ALL = slice(None)


def widen(x: jax.Array, width: int) -> jax.Array:
    """``[C, LANES]`` with equal lanes as ``[C, width]``."""
    return jnp.concatenate([x] * -(-width // LANES), 1)[:, :width]


def lane_sum(*xs: jax.Array) -> jax.Array:
    """The sum of all over the last axis, ``[C, 1]``: registers are added before lanes are."""
    pieces = [x[:, n : n + LANES] for x in xs for n in range(0, x.shape[1], LANES)]
    whole = [piece for piece in pieces if piece.shape[1] == LANES]
    rest = [piece for piece in pieces if piece.shape[1] < LANES]
    parts = [*([functools.reduce(jnp.add, whole)] if whole else []), *rest]
    return functools.reduce(jnp.add, [jnp.sum(x, 1, keepdims=True) for x in parts])


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
            one, state, values = slice(h, h + 1), last[0, h], v[plan.value(h)].T
            if keep:
                kept[0][0, h, 0] = state.astype(low)
            out = dot(values, scores[h]) + dot(state.astype(low), q[0, n], (1, 1)) * decay.enter[one]
            y[plan.value(h)] = out.astype(y.dtype).T
            new = (values.astype(jnp.float32) * decay.leave[one]).astype(low)
            last[0, h] = decay.through[one] * state + dot(new, k[0, n])


def score_products(plan: Plan, q, k, n: int) -> list[jax.Array]:
    """The products of each tile of keys with the queries from there on, of key head n."""
    return [dot(k[0, n, j], q[0, n, j.start :], (1, 1)) for j in plan.tiles()]


class Ones(NamedTuple):
    """One more column of the values, all ones: its part of the state, and the cotangents."""

    state: jax.Array
    """``[1, K]``."""
    dstate: jax.Array
    """``[1, K]``."""
    dy_row: jax.Array
    """``[1, C]``."""
    dy_column: jax.Array
    """``[C, LANES]``."""


class Gradients(NamedTuple):
    """The gradients of one head in a chunk."""

    q: jax.Array
    k: jax.Array
    v: list[jax.Array]
    """Of each tile."""
    state: jax.Array
    read: jax.Array
    """Of the logarithms of decays, by the token that reads from others in the chunk, ``[1, C]``."""
    column: jax.Array
    """The same of what is read from the state, less what others read from a token, ``[C, 1]``."""
    leave: jax.Array
    """By the token that writes into the leaving state, ``[C, 1]``."""
    through: jax.Array
    """From state to state, ``[1, 1]``."""
    ones: jax.Array | None
    """Of the state of ``Ones``."""


def gradients(
    plan: Plan, decay: Decays, h: int, products: list[jax.Array], q: Tokens, k: Tokens, v: Tokens, dy: Tokens,
    state: jax.Array, ds: jax.Array, ones: Ones | None = None,
) -> Gradients:  # fmt: skip
    """Those of what head h did; ``ds`` is the leaving state's."""
    C, K, V, low, tiles = plan.C, plan.K, plan.V, state.dtype, plan.tiles()
    since, through = decay.columns(h), decay.through[h : h + 1]
    enter, leave = decay.ends(h, since)
    dq_read, dk_write = dot(dy(ALL), state), dot(v(ALL), ds.astype(low))
    if ones is not None:
        dk_write = dk_write + ones.dstate
    dq_read, dk_write = widen(enter, K) * dq_read, widen(leave, K) * dk_write
    qf, kf = q(ALL).astype(jnp.float32), k(ALL).astype(jnp.float32)
    passed, dones = jnp.sum(state.astype(jnp.float32) * ds, keepdims=True), None
    if ones is not None:
        entered = widen(enter * ones.dy_column, K)
        dq_read = dq_read + entered * ones.state
        passed = passed + jnp.sum(ones.state * ones.dstate, keepdims=True)
        dones = through * ones.dstate + jnp.sum(qf * entered, 0, keepdims=True)
    dv_write = widen(leave, V) * dot(k(ALL), ds.astype(low), (1, 1))
    along_i, along_j, dk_within, scores, dv = [jnp.zeros((1, C), jnp.float32)], [], [], [], []
    row, col = (jax.lax.broadcasted_iota(jnp.int32, (LANES, LANES), axis) for axis in (0, 1))
    for j, product in zip(tiles, products, strict=True):
        later = slice(j.start, C)
        within = decay.within(h, j, since)
        dproduct = dot(v(j), dy(later), (1, 1))
        dproduct = (dproduct if ones is None else dproduct + ones.dy_row[:, later]) * within
        dv.append(dot((product * within).astype(low), dy(later)) + dv_write[j])
        both = product * dproduct
        pieces = [both[:, m : m + LANES] for m in range(0, both.shape[1], LANES)]
        pieces[0] = jnp.where(row == col, 0, pieces[0])  # a token's own product does not depend on gates
        before = [jnp.zeros((1, j.start), jnp.float32)] if j.start else []
        along_i.append(jnp.concatenate([*before, *[jnp.sum(x, 0, keepdims=True) for x in pieces]], 1))
        along_j.append(sum(pieces))
        scores.append(dproduct.astype(low))
        dk_within.append(dot(scores[-1], q(later)))
    dq_within = []
    for m, i in enumerate(tiles):
        parts = [dot(part[:, i.start - j.start :][:, :LANES], k(j), (0, 0))
                 for part, j in zip(scores, tiles[: m + 1], strict=False)]  # fmt: skip
        dq_within.append(sum(parts))
    column = lane_sum(qf * dq_read, -jnp.concatenate(along_j, 0))
    read_key = (qf * widen(enter, K)).astype(low)
    return Gradients(
        q=jnp.concatenate(dq_within, 0) + dq_read,
        k=jnp.concatenate(dk_within, 0) + dk_write,
        v=dv,
        state=through * ds + dot(dy(ALL), read_key, (0, 0)),
        read=functools.reduce(jnp.add, along_i),
        column=column,
        leave=lane_sum(kf * dk_write),
        through=through * passed,
        ones=dones,
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
    read, through, columns, leave = [], [], Columns(C), Columns(C)
    for n, group in enumerate(plan.groups()):
        products = score_products(plan, q, k, n)
        dq_all, dk_all = [jnp.zeros((C, K), jnp.float32)] * 2
        for h in group:
            head = plan.tokens(q, n), plan.tokens(k, n), plan.values(v, h), plan.values(dy, h)
            d = gradients(plan, decay, h, products, *head, kept[0, h, 0], dstate[0, h])
            for j, one in zip(plan.tiles(), d.v, strict=True):
                dv[plan.value(h, j)] = one.astype(dv.dtype)
            dq_all, dk_all, dstate[0, h] = dq_all + d.q, dk_all + d.k, d.state
            read.append(d.read)
            through.append(d.through)
            columns.put(h, d.column)
            leave.put(h, d.leave)
        dq[0, n] = dq_all.astype(dq.dtype)
        dk[0, n] = dk_all.astype(dk.dtype)
    rows = functools.partial(rows_of, C=C, n=count)
    dg[0, 0] = gate_gradients(rows(read) + columns.rows(count), leave.rows(count), rows(through))
