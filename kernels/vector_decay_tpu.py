"""``ScalarDecays`` for one gate per token and key channel, by the dyadic split of ``decay.VectorDecay``."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import tpu as pltpu

from .decay_tpu import Heads, each, iotas
from .mosaic import dot

TILE = 8
"""Rows of a float32 register: blocks of so many rows are moved without a shuffle."""
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

    ``g`` ``[C, K]`` are the log-gates. ``links`` are those of segments: whether two tokens are in one, ``[C, C]``,
    whether a token is in that of the state that enters and of the one that leaves, ``[C, 1]``, and whether those agree.
    """

    def __init__(self, g: Heads, links: tuple | None = None):
        row, col = iotas(g[0].shape[0])
        self.apart = row ^ col  # its highest bit is the level at which two tokens meet
        self.causal = row >= col if links is None else (row >= col) & links[0]
        self.linked = (lambda x: x) if links is None else lambda x: jnp.where(links[0], x, 0.0)
        self.levels, self.enter, self.leave, self.through, self.total = [], [], [], [], []
        for one in g:
            levels, *ends = _levels(one)
            if links is not None:
                ends = [jnp.where(link, x, 0.0) for link, x in zip(links[1:], ends, strict=True)]
            enter, leave, total = ends
            self.levels.append(levels)
            self.enter.append(enter)
            self.leave.append(leave)
            self.through.append(jnp.transpose(total))
            self.total.append(total)

    def scores(self, q: Heads, a: Heads, k: Heads) -> tuple[Heads, Heads]:
        """``q_i . k_j`` decayed for j <= i, and ``a_i . k_j``, which means nothing but for j < i."""
        P, A, low = [], [], k[0].dtype
        for q_h, a_h, k_h, levels in zip(*map(_widened, (q, a, k)), self.levels, strict=True):
            of_q, of_a = _diagonal(q_h, k_h), jnp.zeros(self.apart.shape)
            for level, decay in enumerate(levels):
                x, y = _factors(level, decay, q_h, a_h, k_h, low)
                s = dot(x, y, (1, 1))
                meet = self.apart >> level == 1
                of_q, of_a = jnp.where(meet, s, of_q), jnp.where(meet, _down(s, level), of_a)
            P.append(jnp.where(self.causal, of_q, 0.0))
            A.append(self.linked(of_a))
        return P, A

    def query_scores(self, q: Heads, k: Heads) -> Heads:
        """The first of the scores alone."""
        P, low = [], k[0].dtype
        for q_h, k_h, levels in zip(_widened(q), _widened(k), self.levels, strict=True):
            of_q = _diagonal(q_h, k_h)
            for level, decay in enumerate(levels):
                s = dot((q_h * decay).astype(low), (k_h * decay).astype(low), (1, 1))
                of_q = jnp.where(self.apart >> level == 1, s, of_q)
            P.append(jnp.where(self.causal, of_q, 0.0))
        return P

    def scores_vjp(self, dq: Heads, da: Heads, q: Heads, a: Heads, k: Heads) -> tuple[Heads, Heads, Heads]:
        """The cotangents of q, a and k for those of the scores, which are zero but for j < i."""
        low, wide = q[0].dtype, map(_widened, (q, a, k))
        found = [self._vjp(low, *one) for one in zip(dq, da, *wide, self.levels, strict=True)]
        return [one[0] for one in found], [one[1] for one in found], [one[2] for one in found]

    def _vjp(self, low, dq, da, q, a, k, levels):
        dq, da, out_q, out_a, out_k = self.linked(dq), self.linked(da), *[jnp.zeros(q.shape)] * 3
        col = iotas(q.shape[0])[1]
        for level, decay in enumerate(levels):
            x, y = _factors(level, decay, q, a, k, low)
            left = (self.apart < 2 << level) & ((col >> level) & 1 == 0)
            ds = jnp.where(left, _pack(dq, da, level), 0.0).astype(low)
            dx, dy = dot(ds, y), dot(ds, x, (0, 0))
            out_q = _add_right(out_q, dx * decay, level)
            out_a = _add_right(out_a, _down(dx, level) * decay, level)
            out_k = out_k + dy * decay
        return out_q, out_a, out_k

    def query_scores_vjp(self, dq: Heads, q: Heads, k: Heads) -> tuple[Heads, Heads]:
        """The cotangents of q and k for those of ``query_scores``, which are zero but for j < i."""
        low, found = q[0].dtype, []
        for ds, q_h, k_h, levels in zip(dq, _widened(q), _widened(k), self.levels, strict=True):
            ds, out_q, out_k = self.linked(ds), jnp.zeros(q_h.shape), jnp.zeros(k_h.shape)
            for level, decay in enumerate(levels):
                met = jnp.where(self.apart >> level == 1, ds, 0.0)
                rows = (lambda x: x) if 1 << level < HALVED else partial(_rights, level=level)
                met, later = rows(met).astype(low), rows(decay)
                dx, dy = dot(met, (k_h * decay).astype(low)), dot(met, (rows(q_h) * later).astype(low), (0, 0))
                out_q, out_k = _add_rows(out_q, dx * later, level), out_k + dy * decay
            found.append((out_q, out_k))
        return [one[0] for one in found], [one[1] for one in found]

    def _entered(self, x: Heads) -> Heads:
        low, C = x[0].dtype, self.enter[0].shape[0]
        scaled = lambda x, e: [(x[n : n + C] * e).astype(low) for n in range(0, x.shape[0], C)]  # noqa: E731
        return each(lambda x, e: jnp.concatenate(scaled(x, e)), x, self.enter)

    def read(self, x: Heads, S: Heads) -> Heads:
        """What x, left factors below each other, reads from the state that enters."""
        return each(dot, self._entered(x), S)

    def read_vjp(self, do: Heads, x: Heads, S: Heads) -> tuple[Heads, Heads]:
        """The cotangents of x and S for that of what was read."""
        C = self.enter[0].shape[0]
        dx = each(lambda do, S: dot(do, S, (1, 1)), do, S)
        scaled = lambda x, e: [x[n : n + C] * e for n in range(0, x.shape[0], C)]  # noqa: E731
        dx = each(lambda dx, e: jnp.concatenate(scaled(dx, e)), dx, self.enter)
        return dx, each(lambda x, do: dot(x, do, (0, 0)), self._entered(x), do)

    def _leaving(self, k: Heads) -> Heads:
        return each(lambda k, leave: (k * leave).astype(k.dtype), k, self.leave)

    def write(self, k: Heads, u: Heads) -> Heads:
        """What u under k adds to the state that leaves."""
        return each(lambda k, u: dot(k, u.astype(k.dtype), (0, 0)), self._leaving(k), u)

    def write_vjp_u(self, dS: Heads, k: Heads) -> Heads:
        """The cotangent of u for that of the state that leaves."""
        return each(lambda dS, k: dot(k, dS), dS, self._leaving(k))

    def write_vjp_k(self, dS: Heads, u: Heads) -> Heads:
        """The cotangent of k."""
        return each(lambda dS, u, leave: dot(u, dS, (1, 1)) * leave, dS, u, self.leave)

    def keep(self, S: Heads) -> Heads:
        """What is left of the state that enters in the one that leaves; of cotangents the other way round."""
        return each(lambda S, through: S * through, S, self.through)

    def gate(self, moved: Heads, written: Heads, kept: Heads, low) -> list[jax.Array]:
        """The cotangents of the gates, ``[C, K]`` of each head; as ``ScalarDecays.gate``."""
        ones = jnp.ones((TILE, kept[0].shape[1]), low)
        total = each(lambda x: _sum_of(lambda part: dot(ones, part, (1, 1)), x, low)[:1], kept)
        return self.gate_of(moved, written, total, low)

    def gate_of(self, moved: Heads, written: Heads, total: Heads, low) -> list[jax.Array]:
        """The same from the sums of ``kept`` over V, ``[1, K]``."""
        row, col = iotas(moved[0].shape[0])
        upto, before = row <= col, row > col
        sums = lambda mask, x: _sum_of(partial(dot, mask.astype(low)), x, low)  # noqa: E731
        return each(lambda m, w, t: sums(upto, m) + sums(before, w) + t, moved, written, total)


def _sum_of(product, x, low) -> jax.Array:
    """The product of x with zeros and ones: exact, or in two parts if products are taken in bfloat16."""
    if low == jnp.float32:
        return product(x)
    high = x.astype(low)
    return product(high) + product((x - high.astype(jnp.float32)).astype(low))


def _levels(g) -> tuple[list, jax.Array, jax.Array, jax.Array]:
    """The decays of each level, those of a whole chunk up to and after its tokens, and over all of it, ``[1, K]``.

    Each is the product of those of the level below: ``upto`` from the start of a token's block up to it, ``after`` from
    after it to the end. No exponent is positive, and each product is over exactly its interval.
    """
    C, slab = g.shape[0], min(SLAB, g.shape[0])
    count, depth = C // slab, slab.bit_length() - 1
    levels: list[list] = [[None] * count for _ in range(C.bit_length() - 1)]
    upto, after, total = [], [], []
    for n in range(count):
        u = jnp.exp(g[n * slab : (n + 1) * slab])
        a, t = jnp.ones_like(u), u
        for level in range(depth):
            right = _right(level, u.shape)
            levels[level][n] = jnp.where(right, u, a)
            sibling = _swap(t, level)
            u, a, t = jnp.where(right, u * sibling, u), jnp.where(right, a, a * sibling), t * sibling
        upto.append(u)
        after.append(a)
        total.append(t[:1])
    for level in range(depth, C.bit_length() - 1):
        half = 1 << (level - depth)
        right = [n & half for n in range(count)]
        levels[level] = [upto[n] if right[n] else after[n] for n in range(count)]
        sibling = [total[n ^ half] for n in range(count)]
        upto = [upto[n] * sibling[n] if right[n] else upto[n] for n in range(count)]
        after = [after[n] if right[n] else after[n] * sibling[n] for n in range(count)]
        total = [total[n] * sibling[n] for n in range(count)]
    whole = jnp.concatenate
    return [whole(level) for level in levels], whole(upto), whole(after), total[0]


def _widened(xs: Heads) -> Heads:
    return each(lambda x: x.astype(jnp.float32), xs)


def _factors(level: int, decay, q, a, k, low) -> tuple[jax.Array, jax.Array]:
    """What is multiplied at a level: queries with the erasing factors in their left halves, and keys."""
    return _pack(q * decay, a * decay, level).astype(low), (k * decay).astype(low)


def _add_right(x, y, level: int):
    """x, and in right halves also y."""
    if 1 << level < TILE:
        return x + jnp.where(_right(level, x.shape), y, 0.0)
    pairs = enumerate(zip(_blocks(x, level), _blocks(y, level), strict=True))
    return jnp.concatenate([x + y if n % 2 else x for n, (x, y) in pairs])


def _rights(x, level: int):
    """The rows of right halves."""
    return jnp.concatenate(_blocks(x, level)[1::2])


def _add_rows(x, y, level: int):
    """x and y, which may be the rows of right halves only."""
    if x.shape == y.shape:
        return x + y
    rights = iter(_blocks(y, level))
    return jnp.concatenate([b + next(rights) if n % 2 else b for n, b in enumerate(_blocks(x, level))])


def _right(level: int, shape: tuple[int, ...]):
    """Whether a row is in the right half of its block."""
    return (lax.broadcasted_iota(jnp.int32, shape, 0) >> level) & 1 == 1


def _diagonal(q, k):
    row, col = iotas(q.shape[0])
    own = jnp.sum(q.astype(jnp.float32) * k.astype(jnp.float32), 1, keepdims=True)
    return jnp.where(row == col, own, 0.0)


def _blocks(x, level: int) -> list:
    return [x[n : n + (1 << level)] for n in range(0, x.shape[0], 1 << level)]


def _down(x, level: int):
    """Rows of left halves, in the right halves."""
    if 1 << level < TILE:
        return pltpu.roll(x, 1 << level, 0)
    blocks = _blocks(x, level)
    return jnp.concatenate([blocks[n - n % 2] for n in range(len(blocks))])


def _up(x, level: int):
    """Rows of right halves, in the left halves."""
    if 1 << level < TILE:
        return pltpu.roll(x, x.shape[0] - (1 << level), 0)
    blocks = _blocks(x, level)
    return jnp.concatenate([blocks[n | 1] for n in range(len(blocks))])


def _pack(right, left, level: int):
    """The right halves of the one array; in the left halves the right halves of the other."""
    if 1 << level < TILE:
        return jnp.where(_right(level, right.shape), right, _up(left, level))
    rights, lefts = _blocks(right, level), _blocks(left, level)
    return jnp.concatenate([rights[n] if n % 2 else lefts[n + 1] for n in range(len(rights))])


def _swap(x, level: int):
    """Left and right halves exchanged."""
    if 1 << level < TILE:
        return jnp.where(_right(level, x.shape), _down(x, level), _up(x, level))
    blocks = _blocks(x, level)
    return jnp.concatenate([blocks[n ^ 1] for n in range(len(blocks))])
