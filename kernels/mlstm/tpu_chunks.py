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
    dscores,
    gate_gradients,
    gradients,
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
            one, state, values = slice(h, h + 1), last[0, h], v[0, h]
            if keep:
                kept[0][0, h, 0] = state.astype(low)
            inside, divisor = scores[h]
            read = dot(norms.below(state.astype(low)), q[0, n])
            divisor = divisor + norms.of(h, read) * decay.enter[one]
            out = dot(values, inside) + read[: plan.V] * decay.enter[one]
            y[0, h] = (out * (1 / jnp.maximum(jnp.abs(divisor), least[one]))).astype(y.dtype)
            if keep:
                kept[2][0, 0, one] = divisor
            new = (values.astype(jnp.float32) * decay.leave[one]).astype(low)
            written = dot(leaves.below(new), k[0, n], (1, 1))
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
    C, K, count, low = plan.C, plan.K, g.shape[2], q.dtype

    @pl.when(pl.program_id(2) == 0)
    def _():
        dstate[...], dlines[...] = dlast[...], dlast_lines[...]

    entering, norm, m = kept_lines[0, 0, 0], norms[0, 0, :count], norms[0, 0, count:]
    found = gates(g[0, 0], i[0, 0], entering[:, :1], read_segments(ids), m)
    least, size = found.least / plan.scale, jnp.abs(norm)
    decay = found.decays(1 / jnp.maximum(size, least))
    pairs = [dy[0, h].astype(jnp.float32) * y[0, h].astype(jnp.float32) for h in range(plan.heads)]
    along = rows_of([jnp.sum(x, 0, keepdims=True) for x in pairs], C, count)
    dnorm = jnp.where(size > least, -jnp.sign(norm), 0) * along
    norms_in, dnorms_out = (x[:, LANES:].T for x in (entering, dlines[0, 0]))
    entered = Terms(decay.enter * dnorm, low)
    ends, begins, leave, through, own = [], Columns(C), [], [], []
    heads = [(h, n) for n, group in enumerate(plan.groups()) for h in group]
    products = [score_products(plan, q, k, n) for n in range(plan.keys)]
    scores = [dscores(plan, decay, h, products[n], v[0, h], dy[0, h], dnorm[h : h + 1]) for h, n in heads]
    for n, group in enumerate(plan.groups()):
        dq_all, dk_all = [jnp.zeros((K, C), jnp.float32)] * 2
        for h in group:
            one, ds = slice(h, h + 1), dstate[0, h]
            ones = Ones(lanes(norms_in[:, one]), lanes(dnorms_out[:, one]), dnorm[one])
            d = gradients(plan, decay, h, scores[h], q[0, n], k[0, n], v[0, h], dy[0, h], states[0, h, 0], ds, ones)
            read = (dy[0, h].astype(jnp.float32) * decay.enter[one]).astype(low)
            read = dot(entered.below(read), q[0, n], (1, 1))
            dstate[0, h] = decay.through[one] * ds + read[: plan.V]
            dlines[0, 0, one, LANES:] = decay.through[one] * dlines[0, 0, one, LANES:] + entered.of(h, read)
            dv[0, h] = d.v.astype(dv.dtype)
            dq_all, dk_all = dq_all + d.q, dk_all + d.k
            ends.append(d.ends + scores[h].ends)
            begins.put(h, scores[h].begins)
            leave.append(d.leave)
            through.append(d.through)
            own.append(jnp.sum(k[0, n].astype(jnp.float32) * d.k, 0, keepdims=True))
        dq[0, n], dk[0, n] = dq_all.astype(dq.dtype), dk_all.astype(dk.dtype)
    rows = functools.partial(rows_of, C=C, n=count)
    dg[0, 0] = gate_gradients(rows(ends) - begins.rows(count), rows(leave), rows(through))
    di[0, 0] = rows(own)
