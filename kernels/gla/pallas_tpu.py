"""Gated linear attention on TPUs: pads, chooses blocks, and ties the kernels' passes together."""

from functools import partial

import jax
import jax.numpy as jnp

from .. import tpu
from ..mosaic import LANES
from . import arguments, tpu_scalar, tpu_vector
from .arguments import OUTPUTS, axes
from .tpu_blocks import Plan, backward, forward

CHUNK = {False: 256, True: 128}
"""Tokens of a chunk, by whether there is a gate for every channel."""
WIDTH = {False: 1024, True: 512}
"""The most columns of a block of heads."""
SUBLANES = 16
"""K and V are padded to multiples of it, the rows of a register of bfloat16."""
__all__ = ["OUTPUTS", "axes", "run", "unsupported"]
KERNELS = {False: tpu_scalar, True: tpu_vector}


def unsupported(q, k, v, *, gv, **_) -> str | None:
    """What does not run here, in words."""
    if reason := tpu.unsupported():
        return reason
    if not {x.dtype.name for x in (q, k, v)} <= {"float32", "bfloat16"}:
        return "q, k and v must be float32 or bfloat16"
    if max(q.shape[3], v.shape[3]) > 256:
        return f"K and V may be at most 256, not {q.shape[3]} and {v.shape[3]}"
    return "there is no kernel for a decay of the value axis" if gv is not None else None


def run(q, k, v, g, **rest):
    """See ``gla``."""
    return arguments.run(_padded, q, k, v, g, **rest)


def _padded(q, k, v, g, scale: float, state, number):
    """Whole chunks and whole registers, in the kernels' layouts. ``number`` counts the segments, or is None."""
    (B, T, H, V), (Hk, K) = v.shape, q.shape[2:]
    vector = g.ndim == 4
    C = min(CHUNK[vector], -(-T // LANES) * LANES)
    short, short_k, short_v = -T % C, -K % SUBLANES, -V % SUBLANES
    heads = block_heads(H, H // Hk, max(K + short_k, V + short_v, LANES), WIDTH[vector])
    plan = Plan(C, heads, max(1, heads * Hk // H), K + short_k, V + short_v, scale, vector)
    pad = lambda x, n: jnp.pad(x, ((0, 0), (0, short), (0, 0), (0, n)))  # noqa: E731
    q, k = (pad(x, short_k).swapaxes(1, 2) for x in (q, k))
    v = pad(v, short_v)
    v = v.reshape(B, T + short, -1) if plan.flat else v.swapaxes(1, 2)
    if vector:
        g = pad(g, short_k).swapaxes(1, 2)
    else:
        g = jnp.pad(g, ((0, 0), (0, short), (0, 0))).swapaxes(1, 2).reshape(B, H // heads, heads, T + short)
        g = jnp.pad(g, ((0, 0), (0, 0), (0, -heads % 8), (0, 0)))
    ids = ()
    if number is not None:
        before = jnp.pad(number[:, :-1], ((0, 0), (1, 0)))
        ids = tuple(jnp.pad(x, ((0, 0), (0, short)), "edge")[:, None].astype(jnp.float32) for x in (number, before))
    state = jnp.pad(state, ((0, 0), (0, 0), (0, short_k), (0, short_v)))
    y, last = _passes(plan, q, k, v, g, state.swapaxes(2, 3) if vector else state, ids)
    last = last.swapaxes(2, 3) if vector else last
    y = y.reshape(B, T + short, H, V + short_v) if plan.flat else y.swapaxes(1, 2)
    return y[:, :T, :, :V], last[:, :, :K, :V]


def block_heads(H: int, group: int, width: int, most: int) -> int:
    """Value heads of a block: whole groups that share a key head, or a part of one."""
    fits = [n for n in range(1, H + 1) if H % n == 0 and (n % group == 0 or group % n == 0) and n * width <= most]
    return max(fits)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _passes(plan, q, k, v, g, first, ids):
    kernel, name = KERNELS[plan.vector].forward_kernel, f"gla_{'vector' if plan.vector else 'scalar'}_forward"
    return tuple(forward(kernel, name, plan, False, q, k, v, g, first, ids))


def _forward(plan, q, k, v, g, first, ids):
    kernel, name = KERNELS[plan.vector].forward_kernel, f"gla_{'vector' if plan.vector else 'scalar'}_forward"
    y, last, kept = forward(kernel, name, plan, True, q, k, v, g, first, ids)
    return (y, last), (q, k, v, g, kept, ids)


def _backward(plan, residuals, cotangents):
    q, k, v, g, kept, ids = residuals
    if plan.vector:  # differentiated code is long: only the heads that share a key head are taken together
        plan = plan._replace(heads=min(plan.heads, kept.shape[1] // q.shape[1]), keys=1)
    kernel, name = KERNELS[plan.vector].backward_kernel, f"gla_{'vector' if plan.vector else 'scalar'}_backward"
    dq, dk, dv, dg, dfirst = backward(kernel, name, plan, q, k, v, g, kept, ids, *cotangents)

    def joined(dx, x):
        """The sum over the blocks of value heads that share a key head."""
        return dx if dx.shape == x.shape else dx.reshape(*x.shape[:2], -1, *x.shape[2:]).sum(2).astype(x.dtype)

    return joined(dq, q), joined(dk, k), dv, dg, dfirst, tuple(jnp.zeros_like(x) for x in ids)


_passes.defvjp(_forward, _backward)
