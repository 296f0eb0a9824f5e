"""Decays inside a TPU kernel's chunk, for several heads at a time: what ``decay`` is to the XLA implementations.

A method takes and returns one array per head. Its steps are taken for all heads before the next step: the products of
one head wait for each other, those of different heads fill the matrix unit.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import tpu as pltpu

from .mosaic import LANES, dot

Heads = list[jax.Array]


def each(f, *heads) -> list:
    """``f`` for every head."""
    return [f(*xs) for xs in zip(*heads, strict=True)]


def iotas(C: int) -> tuple[jax.Array, jax.Array]:
    """The numbers of the rows and of the columns of a ``[C, C]`` matrix."""
    return lax.broadcasted_iota(jnp.int32, (C, C), 0), lax.broadcasted_iota(jnp.int32, (C, C), 1)


def total(xs: list[Heads]) -> Heads:
    """The sum of several arrays of each head."""
    return each(lambda *x: sum(x[1:], x[0]), *xs)


def across(x: jax.Array, ys: Sequence[jax.Array]) -> list[jax.Array]:
    """``x y^T`` for each y, which is one product where the results are whole registers wide."""
    n = ys[0].shape[0]
    if n % LANES or len(ys) == 1:
        return [dot(x, y, (1, 1)) for y in ys]
    found = dot(x, jnp.concatenate(ys), (1, 1))
    return [found[:, m * n : (m + 1) * n] for m in range(len(ys))]


def before(x: jax.Array) -> jax.Array:
    """Each row one row later; the first means nothing."""
    return pltpu.roll(x, 1, 0)


def after(x: jax.Array) -> jax.Array:
    """Each row one row earlier, and the last zero."""
    row = lax.broadcasted_iota(jnp.int32, x.shape, 0)
    return jnp.where(row == x.shape[0] - 1, 0.0, pltpu.roll(x, x.shape[0] - 1, 0))


class ScalarDecays:
    """One gate per token and head.

    ``sums`` ``[C, C]`` are those of the gates after token j, up to token i. ``causal`` says whether j <= i and both are
    in one segment. The decays from the state that enters the chunk to i (``enter``), and from j to the state that
    leaves it (``leave``), are ``[C, 1]``; ``through``, from state to state, is ``[1, 1]``.

    Erasing left factors read up to their own token, or, if ``erasing`` is given, up to the token before: it holds
    ``sums`` and ``enter`` up to there.

    Left factors may be several below each other, ``[2 C, K]``: queries, and below them what erases. Right factors are a
    list: each is ``Heads``.
    """

    def __init__(
        self, sums: Heads, causal: jax.Array, enter: Heads, leave: Heads, through: Heads,
        erasing: tuple[Heads, Heads] | None = None,
    ):  # fmt: skip
        self.causal, self.undecayed = causal, erasing is not None
        row, col = iotas(causal.shape[0])
        self.strict = causal & (row > col)
        self.within = each(lambda s: jnp.exp(jnp.where(causal, s, -jnp.inf)), sums)
        if erasing is None:
            self.erases = self.within
            self.enters = each(lambda e: [e, e], enter)
        else:
            self.erases = each(lambda s: jnp.exp(jnp.where(self.strict, s, -jnp.inf)), erasing[0])
            self.enters = each(lambda *e: e, enter, erasing[1])
        self.leave, self.through = leave, through

    def scores(self, q: Heads, a: Heads, rights: list[Heads]) -> tuple[list[Heads], list[Heads]]:
        """``q_i . k_j`` decayed for j <= i, and ``a_i . k_j`` for j < i, with each right factor."""
        C = q[0].shape[0]
        both = [each(lambda q, a, k: dot(jnp.concatenate([q, a]), k, (1, 1)), q, a, k) for k in rights]
        P = [each(lambda s, w: s[:C] * w, one, self.within) for one in both]
        return P, [each(lambda s, w: jnp.where(self.strict, s[C:] * w, 0.0), one, self.erases) for one in both]

    def query_scores(self, q: Heads, rights: list[Heads]) -> list[Heads]:
        """The first of the scores alone."""
        return [each(lambda q, k, within: dot(q, k, (1, 1)) * within, q, k, self.within) for k in rights]

    def scores_vjp(
        self, dq: list[Heads], da: list[Heads], q: Heads, a: Heads, rights: list[Heads]
    ) -> tuple[Heads, Heads, list[Heads]]:
        """The cotangents of q, a and right factors for those of the scores, which are zero but for j < i."""
        low, C = q[0].dtype, q[0].shape[0]
        weighted = lambda q, a, v, w: jnp.concatenate([(q * v).astype(low), (a * w).astype(low)])  # noqa: E731
        ds = [each(weighted, *pair, self.within, self.erases) for pair in zip(dq, da, strict=True)]
        dx = total([each(dot, one, k) for one, k in zip(ds, rights, strict=True)])
        dk = [each(lambda ds, q, a: dot(ds, jnp.concatenate([q, a]), (0, 0)), one, q, a) for one in ds]
        return each(lambda x: x[:C], dx), each(lambda x: x[C:], dx), dk

    def _entered(self, x: Heads, dtype=jnp.float32) -> Heads:
        return each(lambda x, enters: entered(x, enters, dtype), x, self.enters)

    def read(self, x: Heads, S: Heads) -> Heads:
        """What left factors read from the state that enters; one alone is what erases."""
        return self._entered(each(dot, x, S))

    def read_vjp(self, do: Heads, x: Heads, S: Heads) -> tuple[Heads, Heads]:
        """The cotangents of left factors and S for that of what was read."""
        do = self._entered(do, x[0].dtype)
        return each(lambda do, S: dot(do, S, (1, 1)), do, S), each(lambda x, do: dot(x, do, (0, 0)), x, do)

    def write(self, rights: list[Heads], ws: list[Heads]) -> Heads:
        """What the w under right factors add to the state that leaves."""
        weighted = lambda k, w, leave: dot(k, (w * leave).astype(k.dtype), (0, 0))  # noqa: E731
        return total([each(weighted, k, w, self.leave) for k, w in zip(rights, ws, strict=True)])

    def write_vjp_u(self, dS: Heads, rights: list[Heads]) -> list[Heads]:
        """The cotangents of what is written for that of the state that leaves."""
        return [each(lambda dS, k, leave: dot(k, dS) * leave, dS, k, self.leave) for k in rights]

    def write_vjp_k(self, dS: Heads, ws: list[Heads]) -> list[Heads]:
        """The cotangents of right factors."""
        return [each(lambda dS, w, leave: dot(w, dS, (1, 1)) * leave, dS, w, self.leave) for w in ws]

    def keep(self, S: Heads) -> Heads:
        """What is left of the state that enters in the one that leaves; of cotangents the other way round."""
        return each(lambda S, through: S * through, S, self.through)

    def gate(self, moved: Heads, erased: Heads, written: Heads, kept: Heads, low) -> list[jax.Array]:
        """The cotangents of the gates, ``[C, 1]``: a gate counts in the sums that begin before it and end after.

        Args:
          moved: queries times their cotangents, less right factors times theirs, from the scores for j < i and from
            what was read. Of sums within the chunk that do not reach over a gate, the two ends cancel.
          erased: the same of what erases.
          written: right factors times their cotangents, from what is written.
          kept: the state times its cotangent, from what is kept.
          low: what products are taken in.
        """
        row, col = iotas(moved[0].shape[0])
        rows = lambda xs: side_by_side(each(lambda x: jnp.sum(x, 1, keepdims=True), xs))  # noqa: E731
        whole = side_by_side(each(lambda x: jnp.sum(jnp.sum(x, 0, keepdims=True), 1, keepdims=True), kept))
        sums = lambda mask, xs: dot(mask.astype(jnp.float32), rows(xs))  # noqa: E731
        if self.undecayed:
            ends = sums(row <= col, moved) + sums(row < col, erased)
        else:
            ends = sums(row <= col, each(jnp.add, moved, erased))
        gates = ends + sums(row > col, written) + whole
        return [gates[:, h : h + 1] for h in range(len(moved))]


def entered(x: jax.Array, enters: Sequence[jax.Array], dtype) -> jax.Array:
    """Left factors below each other, each times its decay from the state that enters; one alone is what erases."""
    C = enters[0].shape[0]
    blocks = [x[n : n + C] for n in range(0, x.shape[0], C)]
    scaled = [(b * e).astype(dtype) for b, e in zip(blocks, enters[-len(blocks) :], strict=True)]
    return jnp.concatenate(scaled)


def side_by_side(xs: Heads) -> jax.Array:
    """``[C, 1]`` of each head, side by side."""
    head = lax.broadcasted_iota(jnp.int32, (xs[0].shape[0], len(xs)), 1)
    side = jnp.zeros(head.shape)
    for h, x in enumerate(xs):
        side = jnp.where(head == h, x, side)
    return side
