"""Gated linear attention on TPUs: pads, chooses blocks, and ties the kernels' passes together."""

from functools import partial

import jax
import jax.numpy as jnp

from .. import tpu
from ..mosaic import LANES
from ..segments import segments
from . import tpu_scalar
from .tpu_scalar import Plan

CHUNK = 256
WIDTH = 1024
"""The most columns of a block of heads."""
SUBLANES = 16
"""K and V are padded to multiples of it, the rows of a register of bfloat16."""


def unsupported(q, k, v, g, *, gv, bonus, **_) -> str | None:
    """What does not run here, in words."""
    if reason := tpu.unsupported():
        return reason
    if not {x.dtype.name for x in (q, k, v)} <= {"float32", "bfloat16"}:
        return "q, k and v must be float32 or bfloat16"
    if max(q.shape[3], v.shape[3]) > 256:
        return f"K and V may be at most 256, not {q.shape[3]} and {v.shape[3]}"
    if gv is not None or bonus is not None:
        return "there is no kernel for gv or bonus yet"
    if g is not None and g.ndim == 4:
        return "there is no kernel for a gate of every channel yet"
    return None


def run(q, k, v, g, *, gv, bonus, scale, initial_state, segment_ids):
    """See ``gla``."""
    (B, T, H, V), (Hk, K) = v.shape, q.shape[2:]
    dtype, low = v.dtype, jnp.result_type(q, k, v)
    g = jnp.zeros((B, T, H), jnp.float32) if g is None else jnp.broadcast_to(g, v.shape[:3]).astype(jnp.float32)
    if not isinstance(scale, float | int) or scale <= 0:
        q, scale = (q * scale).astype(low), 1.0
    ids = ()
    C = min(CHUNK, -(-T // LANES) * LANES)
    short = -T % C
    if segment_ids is not None:
        number, valid = segments(segment_ids)
        q, k, v, g = (jnp.where(valid.reshape(B, T, *[1] * (x.ndim - 2)), x, 0) for x in (q, k, v, g))
        before = jnp.pad(number[:, :-1], ((0, 0), (1, 0)))
        ids = tuple(jnp.pad(x, ((0, 0), (0, short)), "edge")[:, None].astype(jnp.float32) for x in (number, before))
    ragged = (-K % SUBLANES, -V % SUBLANES)
    K_, V_ = K + ragged[0], V + ragged[1]
    heads = block_heads(H, H // Hk, max(K_, V_, LANES))
    plan = Plan(C, heads, max(1, heads * Hk // H), K_, V_, float(scale))

    def padded(x):
        return jnp.pad(x.astype(low), ((0, 0), (0, short), (0, 0), (0, -x.shape[3] % SUBLANES)))

    q, k, v = (padded(x) for x in (q, k, v))
    q, k = q.swapaxes(1, 2), k.swapaxes(1, 2)
    v = v.reshape(B, T + short, -1) if plan.flat else v.swapaxes(1, 2)
    g = jnp.pad(g, ((0, 0), (0, short), (0, 0))).swapaxes(1, 2).reshape(B, H // heads, heads, T + short)
    g = jnp.pad(g, ((0, 0), (0, 0), (0, -heads % 8), (0, 0)))
    first = jnp.pad(initial_state, ((0, 0), (0, 0), (0, ragged[0]), (0, ragged[1])))
    y, last = _scalar(plan, q, k, v, g, first, ids)
    y = y.reshape(B, T + short, H, V_) if plan.flat else y.swapaxes(1, 2)
    return y[:, :T, :, :V].astype(dtype), last[:, :, :K, :V]


def block_heads(H: int, group: int, width: int) -> int:
    """Value heads of a block: whole groups that share a key head, or a part of one."""
    fits = [n for n in range(1, H + 1) if H % n == 0 and (n % group == 0 or group % n == 0) and n * width <= WIDTH]
    return max(fits)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scalar(plan, q, k, v, g, first, ids):
    return tuple(tpu_scalar.forward(plan, False, q, k, v, g, first, ids))


def _scalar_forward(plan, q, k, v, g, first, ids):
    y, last, kept = tpu_scalar.forward(plan, True, q, k, v, g, first, ids)
    return (y, last), (q, k, v, g, kept, ids)


def _scalar_backward(plan, residuals, cotangents):
    q, k, v, g, kept, ids = residuals
    dq, dk, dv, dg, dfirst = tpu_scalar.backward(plan, q, k, v, g, kept, ids, *cotangents)

    def joined(dx, x):
        """The sum over the blocks of value heads that share a key head."""
        return dx if dx.shape == x.shape else dx.reshape(*x.shape[:2], -1, *x.shape[2:]).sum(2).astype(x.dtype)

    return joined(dq, q), joined(dk, k), dv, dg, dfirst, tuple(jnp.zeros_like(x) for x in ids)


_scalar.defvjp(_scalar_forward, _scalar_backward)
