"""``ScalarDecays`` for one gate per token and key channel, by the dyadic split of ``decay.VectorDecay``."""

from functools import partial

import jax
import jax.numpy as jnp

from .decay import Heads, across, after, each, entered, iotas, total
from .halves import TILE, add_right, add_rows, down, in_right, only, pack, rights_of, swap
from .mosaic import dot

HALVED = 16
"""The least half whose rows are multiplied alone: of a bfloat16 register."""
SLAB = 32
"""Rows whose decays are made together, from registers to registers."""


class VectorDecays:
    """One gate per token and key channel.

    Tokens i in the right half of a block and j in its left half meet in the middle: at each level of the split, one
    matrix product of rows scaled by the decay from the middle or to it. Erasing left factors need the right halves
    only, and are moved into the queries' left halves, so that both take one product.

    What is elementwise goes head by head: staged like the products, it would be written to memory and read again at
    every step.

    ``g`` ``[C, K]`` are the log-gates; where ``undecayed``, erasing left factors read up to the token before their own.
    ``links`` are those of segments: whether two tokens are in one, ``[C, C]``, whether a token is in that of the state
    that enters and of the one that leaves, ``[C, 1]``, and whether those agree.
    """

    def __init__(self, g: Heads, links: tuple | None = None, undecayed: bool = False):
        row, col = iotas(g[0].shape[0])
        self.undecayed = undecayed
        self.apart = row ^ col  # its highest bit is the level at which two tokens meet
        self.causal = row >= col if links is None else (row >= col) & links[0]
        self.linked = (lambda x: x) if links is None else lambda x: jnp.where(links[0], x, 0.0)
        self.levels, self.enters, self.leave, self.through, self.total = [], [], [], [], []
        for one in g:
            levels, *ends = _levels(one, undecayed)
            if links is not None:
                masks = links[1], links[1], *links[2:]
                ends = [jnp.where(link, x, 0.0) for link, x in zip(masks, ends, strict=True)]
            enter, erasing, leave, through = ends
            self.levels.append(levels)
            self.enters.append((enter, erasing))
            self.leave.append(leave)
            self.through.append(jnp.transpose(through))
            self.total.append(through)

    def scores(self, q: Heads, a: Heads, rights: list[Heads]) -> tuple[list[Heads], list[Heads]]:
        """``q_i . k_j`` decayed for j <= i, and ``a_i . k_j`` for j < i, with each right factor."""
        row, col = iotas(q[0].shape[0])
        low, found, strict = q[0].dtype, [], self.causal & (row > col)
        for q_h, a_h, levels, *ks in zip(_widened(q), _widened(a), self.levels, *map(_widened, rights), strict=True):
            of_q, of_a = [_diagonal(q_h, k) for k in ks], [jnp.zeros(self.apart.shape)] * len(ks)
            for level, decays in enumerate(levels):
                x, ys = _factors(level, decays, q_h, a_h, ks, low)
                s = across(x, ys)
                of_q = [self._meeting(new, old, level) for new, old in zip(s, of_q, strict=True)]
                of_a = [self._meeting(down(new, level), old, level) for new, old in zip(s, of_a, strict=True)]
            found.append(([jnp.where(self.causal, s, 0.0) for s in of_q], [jnp.where(strict, s, 0.0) for s in of_a]))
        P, A = ([list(one) for one in zip(*heads, strict=True)] for heads in zip(*found, strict=True))
        return P, A

    def _meeting(self, new, old, level: int):
        """The old scores, and the new ones of tokens that meet at a level."""
        return only(1, jnp.where(self.apart >> level == 1, new, old), old, level)

    def query_scores(self, q: Heads, rights: list[Heads]) -> list[Heads]:
        """The first of the scores alone."""
        low, found = q[0].dtype, []
        for q_h, levels, *ks in zip(_widened(q), self.levels, *map(_widened, rights), strict=True):
            of_q = [_diagonal(q_h, k) for k in ks]
            for level, (decay, _) in enumerate(levels):
                s = across((q_h * decay).astype(low), [only(0, k * decay, k, level).astype(low) for k in ks])
                of_q = [self._meeting(new, old, level) for new, old in zip(s, of_q, strict=True)]
            found.append([jnp.where(self.causal, s, 0.0) for s in of_q])
        return [list(one) for one in zip(*found, strict=True)]

    def scores_vjp(
        self, dq: list[Heads], da: list[Heads], q: Heads, a: Heads, rights: list[Heads]
    ) -> tuple[Heads, Heads, list[Heads]]:
        """The cotangents of q, a and right factors for those of the scores, which are zero but for j < i."""
        low, n = q[0].dtype, len(rights)
        arrays = *map(_widened, (q, a)), self.levels, *map(_widened, rights), *dq, *da
        found = []
        for q_h, a_h, levels, *rest in zip(*arrays, strict=True):
            found.append(self._vjp(low, rest[n : 2 * n], rest[2 * n :], q_h, a_h, rest[:n], levels))
        of_q, of_a, *of_rights = (list(one) for one in zip(*found, strict=True))
        return of_q, of_a, of_rights

    def _vjp(self, low, dq: list, da: list, q, a, ks: list, levels) -> tuple:
        dq, da = [self.linked(s) for s in dq], [self.linked(s) for s in da]
        out_q, out_a, *out_k = [jnp.zeros(q.shape)] * (2 + len(ks))
        col = iotas(q.shape[0])[1]
        for level, decays in enumerate(levels):
            x, ys = _factors(level, decays, q, a, ks, low)
            left = (self.apart < 2 << level) & ((col >> level) & 1 == 0)
            ds = [jnp.where(left, pack(*pair, level), 0.0).astype(low) for pair in zip(dq, da, strict=True)]
            dx = sum(dot(s, y) for s, y in zip(ds[1:], ys[1:], strict=True)) if len(ks) > 1 else 0.0
            dx = dot(ds[0], ys[0]) + dx
            out_q = add_right(out_q, dx * decays[0], level)
            out_a = add_right(out_a, down(dx, level) * decays[1], level)
            out_k = [only(0, out + dot(s, x, (0, 0)) * decays[0], out, level) for out, s in zip(out_k, ds, strict=True)]
        return out_q, out_a, *out_k

    def query_scores_vjp(self, dq: Heads, q: Heads, k: Heads) -> tuple[Heads, Heads]:
        """The cotangents of q and k for those of ``query_scores``, which are zero but for j < i."""
        low, found = q[0].dtype, []
        for ds, q_h, k_h, levels in zip(dq, _widened(q), _widened(k), self.levels, strict=True):
            ds, out_q, out_k = self.linked(ds), jnp.zeros(q_h.shape), jnp.zeros(k_h.shape)
            for level, (decay, _) in enumerate(levels):
                met = jnp.where(self.apart >> level == 1, ds, 0.0)
                rows = (lambda x: x) if 1 << level < HALVED else partial(rights_of, level=level)
                met, later = rows(met).astype(low), rows(decay)
                dx, dy = dot(met, (k_h * decay).astype(low)), dot(met, (rows(q_h) * later).astype(low), (0, 0))
                out_q, out_k = add_rows(out_q, dx * later, level), out_k + dy * decay
            found.append((out_q, out_k))
        return [one[0] for one in found], [one[1] for one in found]

    def _entered(self, x: Heads) -> Heads:
        return each(lambda x, enters: entered(x, enters, x.dtype), x, self.enters)

    def read(self, x: Heads, S: Heads) -> Heads:
        """What left factors read from the state that enters; one alone is what erases."""
        return each(dot, self._entered(x), S)

    def read_vjp(self, do: Heads, x: Heads, S: Heads) -> tuple[Heads, Heads]:
        """The cotangents of left factors and S for that of what was read."""
        dx = each(lambda do, S: dot(do, S, (1, 1)), do, S)
        dx = each(lambda dx, enters: entered(dx, enters, dx.dtype), dx, self.enters)
        return dx, each(lambda x, do: dot(x, do, (0, 0)), self._entered(x), do)

    def _leaving(self, k: Heads) -> Heads:
        return each(lambda k, leave: (k * leave).astype(k.dtype), k, self.leave)

    def write(self, rights: list[Heads], ws: list[Heads]) -> Heads:
        """What the w under right factors add to the state that leaves."""
        pairs = zip(map(self._leaving, rights), ws, strict=True)
        return total([each(lambda k, w: dot(k, w.astype(k.dtype), (0, 0)), k, w) for k, w in pairs])

    def write_vjp_u(self, dS: Heads, rights: list[Heads]) -> list[Heads]:
        """The cotangents of what is written for that of the state that leaves."""
        return [each(dot, self._leaving(k), dS) for k in rights]

    def write_vjp_k(self, dS: Heads, ws: list[Heads]) -> list[Heads]:
        """The cotangents of right factors."""
        return [each(lambda dS, w, leave: dot(w, dS, (1, 1)) * leave, dS, w, self.leave) for w in ws]

    def keep(self, S: Heads) -> Heads:
        """What is left of the state that enters in the one that leaves; of cotangents the other way round."""
        return each(lambda S, through: S * through, S, self.through)

    def gate(self, moved: Heads, erased: Heads, written: Heads, kept: Heads, low) -> list[jax.Array]:
        """The cotangents of the gates, ``[C, K]`` of each head; as ``ScalarDecays.gate``."""
        ones = jnp.ones((TILE, kept[0].shape[1]), low)
        whole = each(lambda x: _sum_of(lambda part: dot(ones, part, (1, 1)), x, low)[:1], kept)
        moved = each(lambda m, e: m + (after(e) if self.undecayed else e), moved, erased)
        return self.gate_of(moved, written, whole, low)

    def gate_of(self, moved: Heads, written: Heads, whole: Heads, low) -> list[jax.Array]:
        """The same without what erases, from the sums of ``kept`` over V, ``[1, K]``."""
        row, col = iotas(moved[0].shape[0])
        upto, before = row <= col, row > col
        sums = lambda mask, x: _sum_of(partial(dot, mask.astype(low)), x, low)  # noqa: E731
        return each(lambda m, w, t: sums(upto, m) + sums(before, w) + t, moved, written, whole)


def _sum_of(product, x, low) -> jax.Array:
    """The product of x with zeros and ones: exact, or in two parts if products are taken in bfloat16."""
    if low == jnp.float32:
        return product(x)
    high = x.astype(low)
    return product(high) + product((x - high.astype(jnp.float32)).astype(low))


def _levels(g, undecayed: bool) -> tuple[list, jax.Array, jax.Array, jax.Array, jax.Array]:
    """The decays of each level, and what erasing left factors take in their place; and those of a whole chunk: up to
    its tokens, the same for what erases, after them, and over all of it, ``[1, K]``.

    Each is the product of those of the level below: ``upto`` from the start of a token's block up to it, ``until`` up
    to the token before, ``after`` from after it to the end. No exponent is positive, and each product is over exactly
    its interval.
    """
    C, slab = g.shape[0], min(SLAB, g.shape[0])
    count, depth = C // slab, slab.bit_length() - 1
    levels: list[list] = [[None] * count for _ in range(C.bit_length() - 1)]
    erasing: list[list] = [[None] * count for _ in levels]
    upto, until, after, total = [], [], [], []
    for n in range(count):
        u = jnp.exp(g[n * slab : (n + 1) * slab])
        e, a, t = jnp.ones_like(u), jnp.ones_like(u), u
        for level in range(depth):
            right = in_right(level, u.shape)
            levels[level][n] = jnp.where(right, u, a)
            erasing[level][n] = e if undecayed else levels[level][n]
            sibling = swap(t, level)
            e = jnp.where(right, e * sibling, e) if undecayed else e
            u, a, t = jnp.where(right, u * sibling, u), jnp.where(right, a, a * sibling), t * sibling
        upto.append(u)
        until.append(e)
        after.append(a)
        total.append(t[:1])
    for level in range(depth, C.bit_length() - 1):
        half = 1 << (level - depth)
        right = [n & half for n in range(count)]
        levels[level] = [upto[n] if right[n] else after[n] for n in range(count)]
        erasing[level] = until if undecayed else levels[level]
        sibling = [total[n ^ half] for n in range(count)]
        upto = [upto[n] * sibling[n] if right[n] else upto[n] for n in range(count)]
        until = [until[n] * sibling[n] if right[n] else until[n] for n in range(count)]
        after = [after[n] if right[n] else after[n] * sibling[n] for n in range(count)]
        total = [total[n] * sibling[n] for n in range(count)]
    whole = jnp.concatenate
    until = until if undecayed else upto
    pairs = [(whole(level), whole(other)) for level, other in zip(levels, erasing, strict=True)]
    return pairs, whole(upto), whole(until), whole(after), total[0]


def _widened(xs: Heads) -> Heads:
    return each(lambda x: x.astype(jnp.float32), xs)


def _factors(level: int, decays: tuple, q, a, ks: list, low) -> tuple[jax.Array, list[jax.Array]]:
    """What is multiplied at a level: queries with the erasing factors in their left halves, and right factors."""
    decay, erasing = decays
    return pack(q * decay, a * erasing, level).astype(low), [only(0, k * decay, k, level).astype(low) for k in ks]


def _diagonal(q, k):
    row, col = iotas(q.shape[0])
    own = jnp.sum(q.astype(jnp.float32) * k.astype(jnp.float32), 1, keepdims=True)
    return jnp.where(row == col, own, 0.0)
