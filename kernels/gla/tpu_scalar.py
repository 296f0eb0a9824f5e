"""TPU kernels of gla with one gate per token and head: a chunk of several heads a grid step.

Gates are ``[B, blocks, heads of a block, T]``. With D the decays inside a chunk, from exact sums of gates:

    y = (q k^T * D) v + enter (q S)        S' = through S + (leave k)^T v
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ..mosaic import LANES, Sums, dot, exact_sums, running_sums, triangle
from .tpu_blocks import Plan, Segments, lanes, read_segments, where


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


class Decays(NamedTuple):
    """The decays of one head in a chunk."""

    rows: Sums
    """``[1, C]``."""
    columns: Sums
    """``[C, LANES]``."""
    segments: Segments | None

    def within(self, i: slice, j: slice, *, transposed: bool = False, offset: float = 0.0) -> jax.Array:
        """From the tokens of tile j to those of tile i, times ``2 ** offset``; rows are i's, or j's if transposed."""
        if transposed:
            rows = Sums(self.rows.coarse[:, i], self.rows.fine[:, i] + offset)
            exponent, row, column = rows - self.columns[j], i, j
        else:
            exponent, row, column = self.columns[i] - self.rows[:, j], j, i
        holds = None
        if i == j:
            holds = lambda r, c: r <= c if transposed else r >= c  # noqa: E731
            holds = holds(*(jax.lax.broadcasted_iota(jnp.int32, exponent.shape, axis) for axis in (0, 1)))
        if self.segments is not None:
            pair = self.segments.column[column] == self.segments.row[:, row]
            holds = pair if holds is None else holds & pair
        return jnp.exp2(exponent if holds is None else jnp.where(holds, exponent, -jnp.inf))

    def enter(self) -> jax.Array:
        """From the entering state to each token, ``[C, LANES]``."""
        cut = self.segments
        return where(cut and cut.column == cut.before, jnp.exp2(self.columns.whole))

    def leave(self) -> jax.Array:
        """From each token to the leaving state, ``[C, LANES]``."""
        cut = self.segments
        return where(cut and cut.column == cut.last, jnp.exp2(self.rows[:, -1:] - self.columns))

    def through(self) -> jax.Array:
        """From the entering to the leaving state, ``[1, 1]``."""
        cut = self.segments
        return where(cut and cut.before == cut.last, jnp.exp2(self.rows.whole[:, -1:]))


def read_decays(g: jax.Array, segments: Segments | None) -> Callable[[int], Decays]:
    """The decays of each head of ``[heads, C]`` gates."""
    rows = running_sums(g)
    columns = rows.columns()

    def of(h: int) -> Decays:
        one = slice(h, h + 1)
        return Decays(rows[one], Sums(lanes(columns.coarse[:, one]), lanes(columns.fine[:, one])), segments)

    return of


def forward_kernel(plan: Plan, keep: bool, packed: bool, *refs) -> None:
    """One chunk of a block of heads."""
    q, k, v, g, first, *refs = refs
    ids, (y, last, *kept) = (refs[:2], refs[2:]) if packed else ((), refs)
    low, tiles = q.dtype, plan.tiles()

    @pl.when(pl.program_id(2) == 0)
    def _():
        last[...] = first[...]

    decays = read_decays(g[0, 0], read_segments(ids))
    for n, group in enumerate(plan.groups()):
        products = [dot(q[0, n, i], k[0, n, : i.stop], (1, 1)) for i in tiles]
        for h in group:
            decay, state = decays(h), last[0, h]
            if keep:
                kept[0][0, h, 0] = state.astype(low)
            enter = decay.enter()
            for i, product in zip(tiles, products, strict=True):
                within = [decay.within(i, j) for j in tiles if j.start <= i.start]
                weights = (product * jnp.concatenate(within, 1)).astype(low)
                read = dot(q[0, n, i], state.astype(low))
                out = dot(weights, v[plan.value(h, slice(i.stop))]) + widen(enter[i], plan.V) * read
                y[plan.value(h, i)] = (out * plan.scale).astype(y.dtype)
            written = (k[0, n] * widen(decay.leave(), plan.K)).astype(low)
            last[0, h] = decay.through() * state + dot(written, v[plan.value(h)], (0, 0))


def backward_kernel(plan: Plan, packed: bool, *refs) -> None:
    """One chunk of a block of heads, the last chunk first; products are transposed: rows are the earlier tokens."""
    q, k, v, g, dy, kept, dlast, *refs = refs
    ids, (dq, dk, dv, dg, dstate) = (refs[:2], refs[2:]) if packed else ((), refs)
    low, tiles, log_scale = q.dtype, plan.tiles(), math.log2(plan.scale)
    C, K, V = plan.C, plan.K, plan.V

    @pl.when(pl.program_id(2) == 0)
    def _():
        dstate[...] = dlast[...]

    decays = read_decays(g[0, 0], read_segments(ids))
    rows, passing = [], []
    columns, leaving = [jnp.zeros((C, LANES), jnp.float32)] * 2
    lane = jax.lax.broadcasted_iota(jnp.int32, (C, LANES), 1)
    for n, group in enumerate(plan.groups()):
        products = [dot(k[0, n, j], q[0, n, j.start :], (1, 1)) for j in tiles]
        dq_all, dk_all = [jnp.zeros((C, K), jnp.float32)] * 2
        for h in group:
            decay, value = decays(h), plan.value(h)
            state, ds = kept[0, h, 0], dstate[0, h]
            enter, leave = decay.enter() * plan.scale, decay.leave()
            through = decay.through()
            dq_read = widen(enter, K) * dot(dy[value], state, (1, 1))
            dk_write = widen(leave, K) * dot(v[value], ds.astype(low), (1, 1))
            dv_write = widen(leave, V) * dot(k[0, n], ds.astype(low))
            along_i, along_j, dk_within, scores = [jnp.zeros((1, C), jnp.float32)], [], [], []
            for j, product in zip(tiles, products, strict=True):
                later = [i for i in tiles if i.start >= j.start]
                within = jnp.concatenate([decay.within(i, j, transposed=True, offset=log_scale) for i in later], 1)
                dproduct = dot(v[plan.value(h, j)], dy[plan.value(h, slice(j.start, C))], (1, 1)) * within
                weights = (product * within).astype(low)
                dv[plan.value(h, j)] = (dot(weights, dy[plan.value(h, slice(j.start, C))]) + dv_write[j]).astype(
                    dv.dtype
                )
                both = product * dproduct
                own = jax.lax.broadcasted_iota(jnp.int32, (LANES, LANES), 0)
                own = own == jax.lax.broadcasted_iota(jnp.int32, (LANES, LANES), 1)
                pieces = [both[:, m : m + LANES] for m in range(0, both.shape[1], LANES)]
                pieces[0] = jnp.where(own, 0, pieces[0])  # a token's own product does not depend on gates
                before = [jnp.zeros((1, j.start), jnp.float32)] if j.start else []
                along_i.append(jnp.concatenate([*before, *[jnp.sum(x, 0, keepdims=True) for x in pieces]], 1))
                along_j.append(sum(pieces))
                dproduct = dproduct.astype(low)
                dk_within.append(dot(dproduct, q[0, n, j.start :]))
                scores.append(dproduct)
            dq_within = []
            for m, i in enumerate(tiles):
                parts = [dot(part[:, i.start - j.start :][:, :LANES], k[0, n, j], (0, 0))
                         for part, j in zip(scores, tiles[: m + 1], strict=False)]  # fmt: skip
                dq_within.append(sum(parts))
            qf, kf = q[0, n].astype(jnp.float32), k[0, n].astype(jnp.float32)
            rows.append(sum(along_i))
            own_column = lane == h
            column = lane_sum(qf * dq_read, -jnp.concatenate(along_j, 0))
            columns = jnp.where(own_column, column, columns)
            leaving = jnp.where(own_column, lane_sum(kf * dk_write), leaving)
            passing.append(through * jnp.sum(state.astype(jnp.float32) * ds, keepdims=True))
            dq_all = dq_all + jnp.concatenate(dq_within, 0) + dq_read
            dk_all = dk_all + jnp.concatenate(dk_within, 0) + dk_write
            read_key = (qf * widen(enter, K)).astype(low)
            dstate[0, h] = through * ds + dot(read_key, dy[value], (0, 0))
        dq[0, n] = dq_all.astype(dq.dtype)
        dk[0, n] = dk_all.astype(dk.dtype)
    short = [jnp.zeros((g.shape[2] - plan.heads, C), jnp.float32)] if g.shape[2] > plan.heads else []
    stack = lambda xs: jnp.concatenate([*xs, *short], 0)  # noqa: E731
    until = stack(rows) + columns.T[: g.shape[2]]
    after = leaving.T[: g.shape[2]]
    whole = stack([jnp.broadcast_to(x, (1, C)) for x in passing])
    dg[0, 0] = (
        exact_sums(until, triangle(C, C, lambda i, t: i >= t))
        + exact_sums(after, triangle(C, C, lambda j, t: j < t))
        + whole
    )
