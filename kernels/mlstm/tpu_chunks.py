"""TPU kernels of mLSTM: ``gla``'s with other decays, a normaliser, and a division.

The normaliser is what one more column of values, all ones, would give: ``d = sum of weights + enter (q . n)``, and
``y = read / max(|d|, exp(-m) / scale)``. It may nearly vanish, so that nothing of it is rounded. Lines
``[heads, LANES + K]`` hold m, to the base 2 in all lanes, and n.
"""

import jax.numpy as jnp
from jax.experimental import pallas as pl

from ..gla.tpu_blocks import Plan, read_segments
from ..gla.tpu_scalar import weights, whole
from ..gla.tpu_scalar_vjp import Ones, backward, rows_of
from ..tpu.mosaic import LANES, Terms, dot
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


def backward_kernel(plan: Plan, packed: bool, *refs) -> None:
    """One chunk of a block of heads, the last chunk first."""
    q, k, v, g, i, y, dy, states, kept_lines, norms, dlast, dlast_lines, *refs = refs
    ids, (dq, dk, dv, dg, di, dstate, dlines) = (refs[:2], refs[2:]) if packed else ((), refs)
    C, count = plan.C, g.shape[2]

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
    ones = Ones(entering[:, LANES:], dlines[0, 0, :, LANES:], dnorm)
    rows = backward(plan, decay, (q, k, v, dy, states), (dq, dk, dv, dstate), count, ones)
    for h, x in enumerate(rows.ones):
        one = slice(h, h + 1)
        dlines[0, 0, one, LANES:] = decay.through[one] * dlines[0, 0, one, LANES:] + x
    dg[0, 0], di[0, 0] = rows.gates, rows.keys
