"""Decays inside a TPU kernel's chunk, for several heads at a time: what ``decay`` is to the XLA implementations.

A method takes and returns one array per head. Its steps are taken for all heads before the next step: the products of
one head wait for each other, those of different heads fill the matrix unit.
"""

import jax
import jax.numpy as jnp
from jax import lax

from .mosaic import dot

Heads = list[jax.Array]


def each(f, *heads) -> list:
    """``f`` for every head."""
    return [f(*xs) for xs in zip(*heads, strict=True)]


def iotas(C: int) -> tuple[jax.Array, jax.Array]:
    """The numbers of the rows and of the columns of a ``[C, C]`` matrix."""
    return lax.broadcasted_iota(jnp.int32, (C, C), 0), lax.broadcasted_iota(jnp.int32, (C, C), 1)


def blockwise(f, x: jax.Array, C: int) -> jax.Array:
    """``f`` of each block of C rows."""
    return jnp.concatenate([f(x[n : n + C]) for n in range(0, x.shape[0], C)])


class ScalarDecays:
    """One gate per token and head.

    ``sums`` ``[C, C]`` are those of the gates after token j, up to token i. ``causal`` says whether j <= i and both are
    in one segment. The decays from the state that enters the chunk to i (``enter``), and from j to the state that
    leaves it (``leave``), are ``[C, 1]``; ``through``, from state to state, is ``[1, 1]``.

    Where a method takes x, left factors may be several below each other: queries, and what erases, ``[2 C, K]``.
    """

    def __init__(self, sums: Heads, causal: jax.Array, enter: Heads, leave: Heads, through: Heads):
        self.within = each(lambda s: jnp.exp(jnp.where(causal, s, -jnp.inf)), sums)
        self.enter, self.leave, self.through = enter, leave, through

    def _rows(self, weight, x, dtype=jnp.float32):
        return blockwise(lambda b: (b * weight).astype(dtype), x, self.within[0].shape[0])

    def scores(self, q: Heads, a: Heads, k: Heads) -> tuple[Heads, Heads]:
        """``q_i . k_j`` decayed for j <= i, and ``a_i . k_j``."""
        C = q[0].shape[0]
        both = each(lambda q, a, k: dot(jnp.concatenate([q, a]), k, (1, 1)), q, a, k)
        return each(lambda s, w: s[:C] * w, both, self.within), each(lambda s, w: s[C:] * w, both, self.within)

    def query_scores(self, q: Heads, k: Heads) -> Heads:
        """The first of the scores alone."""
        return each(lambda q, k, within: dot(q, k, (1, 1)) * within, q, k, self.within)

    def scores_vjp(self, dq: Heads, da: Heads, q: Heads, a: Heads, k: Heads) -> tuple[Heads, Heads, Heads]:
        """The cotangents of q, a and k for those of the scores, which are zero but for j < i."""
        low, C = q[0].dtype, q[0].shape[0]
        ds = each(lambda q, a, w: jnp.concatenate([(q * w).astype(low), (a * w).astype(low)]), dq, da, self.within)
        dx = each(dot, ds, k)
        dk = each(lambda ds, q, a: dot(ds, jnp.concatenate([q, a]), (0, 0)), ds, q, a)
        return each(lambda x: x[:C], dx), each(lambda x: x[C:], dx), dk

    def read(self, x: Heads, S: Heads) -> Heads:
        """What x reads from the state that enters."""
        return each(lambda x, S, enter: self._rows(enter, dot(x, S)), x, S, self.enter)

    def read_vjp(self, do: Heads, x: Heads, S: Heads) -> tuple[Heads, Heads]:
        """The cotangents of x and S for that of what was read."""
        low = x[0].dtype
        do = each(lambda do, enter: self._rows(enter, do, low), do, self.enter)
        return each(lambda do, S: dot(do, S, (1, 1)), do, S), each(lambda x, do: dot(x, do, (0, 0)), x, do)

    def write(self, k: Heads, u: Heads) -> Heads:
        """What u under k adds to the state that leaves."""
        return each(lambda k, u, leave: dot(k, (u * leave).astype(k.dtype), (0, 0)), k, u, self.leave)

    def write_vjp_u(self, dS: Heads, k: Heads) -> Heads:
        """The cotangent of u for that of the state that leaves."""
        return each(lambda dS, k, leave: dot(k, dS) * leave, dS, k, self.leave)

    def write_vjp_k(self, dS: Heads, u: Heads) -> Heads:
        """The cotangent of k."""
        return each(lambda dS, u, leave: dot(u, dS, (1, 1)) * leave, dS, u, self.leave)

    def keep(self, S: Heads) -> Heads:
        """What is left of the state that enters in the one that leaves; of cotangents the other way round."""
        return each(lambda S, through: S * through, S, self.through)

    def gate(self, moved: Heads, written: Heads, kept: Heads, low) -> list[jax.Array]:
        """The cotangents of the gates, ``[C, 1]``: a gate counts in the sums that begin before it and end after.

        Args:
          moved: left factors times their cotangents, less keys times theirs, from the scores for j < i and from what
            was read. Of sums within the chunk that do not reach over a gate, the two ends cancel.
          written: keys times their cotangents, from what is written.
          kept: the state times its cotangent, from what is kept.
          low: what products are taken in.
        """
        row, col = iotas(moved[0].shape[0])
        rows = lambda xs: side_by_side(each(lambda x: jnp.sum(x, 1, keepdims=True), xs))  # noqa: E731
        total = side_by_side(each(lambda x: jnp.sum(jnp.sum(x, 0, keepdims=True), 1, keepdims=True), kept))
        upto, before = (row <= col).astype(jnp.float32), (row > col).astype(jnp.float32)
        gates = dot(upto, rows(moved)) + dot(before, rows(written)) + total
        return [gates[:, h : h + 1] for h in range(len(moved))]


def side_by_side(xs: Heads) -> jax.Array:
    """``[C, 1]`` of each head, side by side."""
    head = lax.broadcasted_iota(jnp.int32, (xs[0].shape[0], len(xs)), 1)
    side = jnp.zeros(head.shape)
    for h, x in enumerate(xs):
        side = jnp.where(head == h, x, side)
    return side
