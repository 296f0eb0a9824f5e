"""Gated linear attention on TPUs: pads, chooses blocks, and ties the kernels' passes together."""

from functools import partial

import jax
import jax.numpy as jnp

from .. import tpu
from . import arguments, tpu_scalar, tpu_vector
from .arguments import OUTPUTS, axes
from .tpu_blocks import arrange, backward, forward, joined, outputs, pad, rows

CHUNK = {False: 256, True: 128}
"""Tokens of a chunk, by whether there is a gate for every channel."""
WIDTH = {False: 1024, True: 512}
"""The most columns of a block of heads."""
__all__ = ["OUTPUTS", "axes", "run", "unsupported"]
KERNELS = {False: tpu_scalar, True: tpu_vector}


def unsupported(q, k, v, *, gv, **_) -> str | None:
    """What does not run here, in words."""
    if reason := tpu.unsupported_heads(q, k, v):
        return reason
    return "there is no kernel for a decay of the value axis" if gv is not None else None


def run(q, k, v, g, **rest):
    """See ``gla``."""
    return arguments.run(_padded, q, k, v, g, **rest)


def _padded(q, k, v, g, scale: float, state, number):
    """Whole chunks and whole registers, in the kernels' layouts. ``number`` counts the segments, or is None."""
    (T, shape), vector, (K, V) = (v.shape[1], v.shape), g.ndim == 4, state.shape[2:]
    size = {"C": CHUNK[vector], "width": WIDTH[vector], "scale": scale, "vector": vector}
    plan, qkv, ids = arrange(q, k, v, number, **size)
    g = pad(g, -T % plan.C, plan.K - K).swapaxes(1, 2) if vector else rows(plan, g)
    state = jnp.pad(state, ((0, 0), (0, 0), (0, plan.K - K), (0, plan.V - V)))
    y, last = _passes(plan, *qkv, g, state.swapaxes(2, 3), ids)
    return outputs(plan, y, shape), last.swapaxes(2, 3)[:, :, :K, :V]


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
    kernel, name = KERNELS[plan.vector].backward_kernel, f"gla_{'vector' if plan.vector else 'scalar'}_backward"
    dq, dk, dv, dg, dfirst = backward(kernel, name, plan, q, k, v, g, kept, ids, *cotangents)
    return joined(dq, q), joined(dk, k), dv, dg, dfirst, tuple(jnp.zeros_like(x) for x in ids)


_passes.defvjp(_forward, _backward)
