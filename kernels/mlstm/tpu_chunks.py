"""TPU kernels of mLSTM: ``gla``'s with other decays, a normaliser, and a division.

The normaliser is what one more column of values, all ones, would give: ``d = sum of weights + enter (q . n)``, and
``y = read / max(|d|, exp(-m) / scale)``. It may nearly vanish, so that nothing of it is rounded. Lines
``[heads, LANES + K]`` hold m, to the base 2 in all lanes, and n.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ..gla.tpu_blocks import Plan, lanes, read_segments
from ..gla.tpu_scalar import (
    Columns,
    Ones,
    gate_gradients,
    gradients,
    lane_sum,
    rows_of,
    score_products,
    weights,
    whole,
)
from ..tpu.mosaic import LANES, dot, split
from .tpu_gates import gates


def forward_kernel(plan: Plan, keep: bool, packed: bool, *refs) -> None:
    """One chunk of a block of heads; what is kept: the entering states and lines, and each token's divisor and m."""
    q, k, v, g, i, first, first_lines, *refs = refs
    ids, (y, last, lines, *kept) = (refs[:2], refs[2:]) if packed else ((), refs)
    low, count = q.dtype, g.shape[2]

    @pl.when(pl.program_id(2) == 0)
    def _():
        last[...], lines[...] = first[...], first_lines[...]

    entering = lines[0, 0]
    found = gates(g[0, 0], i[0, 0], entering[:, :1], read_segments(ids))
    decay, least = found.decays(), found.least / plan.scale
    scores = []
    for tiles in weights(plan, decay, q, k):
        sums = whole([jnp.sum(x, 0, keepdims=True) for x in tiles])
        scores.append((whole([x.astype(low) for x in tiles]), jnp.sum(sums, 0, keepdims=True)))
    # Rows of all heads: a product of one head gives what is read from its own, and the others nothing.
    norms, leaves = Terms(entering[:, LANES:], low), Terms(decay.leave, low)
    if keep:
        kept[1][0, 0, 0] = entering
        kept[2][0, 0, count:] = found.m
        kept[2][0, 0, :count] = jnp.zeros((count, plan.C), jnp.float32)
    for n, group in enumerate(plan.groups()):
        for h in group:
            one, state, values = slice(h, h + 1), last[0, h], v[plan.value(h)].T
            if keep:
                kept[0][0, h, 0] = state.astype(low)
            inside, divisor = scores[h]
            read = dot(norms.below(state.astype(low)), q[0, n], (1, 1))
            divisor = divisor + norms.of(h, read) * decay.enter[one]
            out = dot(values, inside) + read[: plan.V] * decay.enter[one]
            y[plan.value(h)] = (out * (1 / jnp.maximum(jnp.abs(divisor), least[one]))).astype(y.dtype).T
            if keep:
                kept[2][0, 0, one] = divisor
            new = (values.astype(jnp.float32) * decay.leave[one]).astype(low)
            written = dot(leaves.below(new), k[0, n])
            last[0, h] = decay.through[one] * state + written[: plan.V]
            lines[0, 0, one, LANES:] = decay.through[one] * entering[one, LANES:] + leaves.of(h, written)
    lines[0, 0, :, :LANES] = jnp.broadcast_to(found.m[:, -1:], (count, LANES))


class Terms:
    """Rows of all heads ``[heads, n]`` as further rows of a left factor, without rounding."""

    def __init__(self, x: jax.Array, low):
        self.count, self.terms = x.shape[0], split(x) if low == jnp.bfloat16 else [x]

    def below(self, x: jax.Array) -> jax.Array:
        """The rows, below those of another left factor."""
        return jnp.concatenate([x, *self.terms], 0)

    def of(self, h: int, product: jax.Array) -> jax.Array:
        """What the row of head h gave, ``[1, n]``."""
        start = product.shape[0] - self.count * len(self.terms) + h
        ends = range(start, product.shape[0], self.count)
        return functools.reduce(jnp.add, [product[n : n + 1] for n in ends])


def backward_kernel(plan: Plan, packed: bool, *refs) -> None:
    """One chunk of a block of heads, the last chunk first."""
    q, k, v, g, i, y, dy, states, kept_lines, norms, dlast, dlast_lines, *refs = refs
    ids, (dq, dk, dv, dg, di, dstate, dlines) = (refs[:2], refs[2:]) if packed else ((), refs)
    C, K, count = plan.C, plan.K, g.shape[2]

    @pl.when(pl.program_id(2) == 0)
    def _():
        dstate[...], dlines[...] = dlast[...], dlast_lines[...]

    entering, norm, m = kept_lines[0, 0, 0], norms[0, 0, :count], norms[0, 0, count:]
    found = gates(g[0, 0], i[0, 0], entering[:, :1], read_segments(ids), m)
    least, size, along = found.least / plan.scale, jnp.abs(norm), Columns(C)
    decay = found.decays(1 / jnp.maximum(size, least))
    for h in range(plan.heads):
        along.put(h, lane_sum(dy[plan.value(h)].astype(jnp.float32) * y[plan.value(h)].astype(jnp.float32)))
    dnorm = jnp.where(size > least, -jnp.sign(norm), 0) * along.rows(count)
    dnorms = dnorm.T
    read, through, columns, leave, own = [], [], Columns(C), Columns(C), Columns(C)
    for n, group in enumerate(plan.groups()):
        products = score_products(plan, q, k, n)
        dq_all, dk_all = [jnp.zeros((C, K), jnp.float32)] * 2
        for h in group:
            one = slice(h, h + 1)
            ones = Ones(entering[one, LANES:], dlines[0, 0, one, LANES:], dnorm[one], lanes(dnorms[:, one]))
            head = plan.tokens(q, n), plan.tokens(k, n), plan.values(v, h), plan.values(dy, h)
            d = gradients(plan, decay, h, products, *head, states[0, h, 0], dstate[0, h], ones)
            for t, part in zip(plan.tiles(), d.v, strict=True):
                dv[plan.value(h, t)] = part.astype(dv.dtype)
            dq_all, dk_all = dq_all + d.q, dk_all + d.k
            dstate[0, h], dlines[0, 0, one, LANES:] = d.state, d.ones
            read.append(d.read)
            through.append(d.through)
            columns.put(h, d.column)
            leave.put(h, d.leave)
            own.put(h, lane_sum(k[0, n].astype(jnp.float32) * d.k))
        dq[0, n] = dq_all.astype(dq.dtype)
        dk[0, n] = dk_all.astype(dk.dtype)
    dg[0, 0] = gate_gradients(
        rows_of(read, C, count) + columns.rows(count), leave.rows(count), rows_of(through, C, count)
    )
    di[0, 0] = own.rows(count)
