"""One pass over time that reads and writes rows in place; its gradient is the same pass the other way.

An associative scan does the work log T times over, in several copies of its inputs: a CPU takes four times as long.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from ..segments import segments


def unsupported(**_) -> str | None:
    """The rows run everything."""
    return None


def run(a, x, *, initial_state, segment_ids, reverse):
    """See ``linear_scan``."""
    return by_segment(scan, a, x, initial_state, segment_ids, reverse)


def by_segment(scan: Callable, a, x, h0, segment_ids, reverse):
    """``scan(a, x, h0, reverse)`` with decays and inputs that keep segments apart and hold the state in padding."""
    if segment_ids is None:
        return scan(a, x, h0, reverse)
    seg = segments(jnp.flip(segment_ids, axis=1) if reverse else segment_ids)
    first, valid = (jnp.flip(z, axis=1)[..., None] if reverse else z[..., None] for z in (seg.first, seg.valid))
    a, x = jnp.where(valid, jnp.where(first, 0, a), 1), jnp.where(valid, x, 0)
    y, h = scan(a, x, h0, reverse)
    return jnp.where(valid, y, 0), h


UNROLLED = 16
"""Up to this many rows are written out."""


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def scan(a, x, h0, reverse):
    """The recurrence without segments: y in x's dtype, and the last state in h0's."""
    T = x.shape[1]
    if T <= UNROLLED:
        return _unrolled(a, x, h0, reverse)

    def step(i, carry):
        h, y = carry
        t = T - 1 - i if reverse else i
        a_t, x_t = (lax.dynamic_slice_in_dim(z, t, 1, axis=1).astype(h.dtype) for z in (a, x))
        h = a_t * h + x_t
        return h, lax.dynamic_update_slice_in_dim(y, h.astype(y.dtype), t, axis=1)

    h, y = lax.fori_loop(0, T, step, (h0[:, None], jnp.zeros_like(x)))
    return y, h[:, 0]


def _unrolled(a, x, h, reverse):
    """The rows without a loop: twice as fast. Without the barrier XLA computes each again for every later one."""
    rows = range(x.shape[1])
    y = [h] * len(rows)
    for t in reversed(rows) if reverse else rows:
        h = lax.optimization_barrier(a[:, t].astype(h.dtype) * h + x[:, t].astype(h.dtype))
        y[t] = h.astype(x.dtype)
    return jnp.stack(y, axis=1), h


def delay(z, first, reverse):
    """z moved one token on in the direction of the scan, behind ``first`` ``[B, D]``."""
    first = first[:, None].astype(z.dtype)
    return jnp.concatenate([z[:, 1:], first] if reverse else [first, z[:, :-1]], axis=1)


def forward(a, x, h0, reverse):
    """Keeps the decays and the states, and nothing else that grows with T."""
    y, h = scan(a, x, h0, reverse)
    return (y, h), (a, y, h0)


def backward(reverse, kept, cotangents):
    """With r_t = dL/dh_t: r_t = dy_t + a_{t+1} r_{t+1}, a linear scan; then dx_t = r_t and da_t = r_t h_{t-1}."""
    a, y, h0 = kept
    dy, dh = cotangents
    r, _ = scan(delay(a, jnp.ones_like(h0), not reverse), dy.astype(h0.dtype), dh, not reverse)
    last = -1 if reverse else 0
    dh0 = a[:, last].astype(h0.dtype) * r[:, last]
    return (r * delay(y, h0, reverse)).astype(a.dtype), r.astype(y.dtype), dh0


scan.defvjp(forward, backward)
