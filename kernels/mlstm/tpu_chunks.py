"""TPU kernels of mLSTM: ``gla``'s with other decays, a normaliser, and a division.

The normaliser is what one more column of values, all ones, would give: ``d = sum of weights + enter (q . n)``, and
``y = read / max(|d|, exp(-m) / scale)``. Lines ``[heads, LANES + K]`` hold m, to the base 2 in all lanes, and n.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ..gla.tpu_blocks import Plan, lanes, read_segments
from ..gla.tpu_scalar import (
    Columns,
    Ones,
    backward_products,
    forward_products,
    gate_gradients,
    gradients,
    lane_sum,
    reads,
    rows_of,
    widen,
    written,
)
from ..mosaic import LANES, dot
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
    decays, least, divisors = found.reading(), (found.least / plan.scale).T, Columns(plan.C)
    norms, ones = entering[:, LANES:].T, jnp.ones((plan.C, LANES), low)
    if keep:
        kept[1][0, 0, 0] = entering
    for n, group in enumerate(plan.groups()):
        products = forward_products(plan, q, k, n)
        for h in group:
            decay, state, one = decays[h], last[0, h], slice(h, h + 1)
            if keep:
                kept[0][0, h, 0] = state.astype(low)
            # In the lanes beside the values' the same products give the divisor, and in all of them at once.
            norm, rest = rounded(lanes(norms[:, one]), low)
            wide = jnp.concatenate([state.astype(low), norm], 1)
            values = lambda t, h=h: jnp.concatenate([v[plan.value(h, t)], ones[t]], 1)  # noqa: E731
            floor, divisor = lanes(least[:, one]), []
            for t, weights, read in reads(plan, decay, products, plan.tokens(q, n), values, wide):
                divisor.append(read[:, plan.V :])
                if low != jnp.float32:  # it may nearly vanish: what rounding took of it counts
                    missing = dot(rounded(weights, low)[1], ones[: t.stop]) + decay.enter[t] * dot(q[0, n, t], rest)
                    divisor[-1] = divisor[-1] + missing
                inverse = 1 / jnp.maximum(jnp.abs(divisor[-1]), floor[t])
                y[plan.value(h, t)] = (read[:, : plan.V] * widen(inverse, plan.V)).astype(y.dtype)
            divisors.put(h, jnp.concatenate(divisor, 0))
            new = written(plan, decay, plan.tokens(k, n))
            lines[0, 0, one, LANES:] = decay.through * entering[one, LANES:] + jnp.sum(new, 0, keepdims=True)
            last[0, h] = decay.through * state + dot(new.astype(low), v[plan.value(h)], (0, 0))
    lines[0, 0, :, :LANES] = jnp.broadcast_to(found.m[:, -1:], (count, LANES))
    if keep:
        kept[2][0, 0] = jnp.concatenate([divisors.rows(count), found.m], 0)


def rounded(x: jax.Array, low) -> tuple[jax.Array, jax.Array]:
    """``x`` rounded, and the rest of it."""
    most = x.astype(low)
    return most, (x - most.astype(jnp.float32)).astype(low)


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
    decays = found.scaled(1 / jnp.maximum(size, least))
    for h in range(plan.heads):
        along.put(h, lane_sum(dy[plan.value(h)].astype(jnp.float32) * y[plan.value(h)].astype(jnp.float32)))
    dnorm = jnp.where(size > least, -jnp.sign(norm), 0) * along.rows(count)
    dnorms = dnorm.T
    read, through, columns, leave, own = [], [], Columns(C), Columns(C), Columns(C)
    for n, group in enumerate(plan.groups()):
        products = backward_products(plan, q, k, n)
        dq_all, dk_all = [jnp.zeros((C, K), jnp.float32)] * 2
        for h in group:
            one = slice(h, h + 1)
            ones = Ones(entering[one, LANES:], dlines[0, 0, one, LANES:], dnorm[one], lanes(dnorms[:, one]))
            head = plan.tokens(q, n), plan.tokens(k, n), plan.values(v, h), plan.values(dy, h)
            d = gradients(plan, decays[h], products, *head, states[0, h, 0], dstate[0, h], ones)
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
