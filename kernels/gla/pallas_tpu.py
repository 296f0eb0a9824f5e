"""Gated linear attention on TPUs: pads, chooses blocks, and ties the kernels' passes together."""

from functools import partial

import jax
import jax.numpy as jnp

from .. import tpu
from ..heads import repeat_heads
from ..segments import segments
from . import tpu_scalar, tpu_vector
from .tpu_blocks import arrange, backward, forward, joined, outputs, pad, rows

CHUNK = {False: 256, True: 128}
"""Tokens of a chunk, by whether there is a gate for every channel."""
WIDTH = {False: 1024, True: 512}
"""The most columns of a block of heads."""
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


OUTPUTS = ("B T H V", "B H K V")


def axes(q, v, g, **_) -> dict[str, str]:
    """The axes of the arrays."""
    gates = {1: "H", 3: "B T H", 4: "B T H K" if g is not None and g.shape[2:3] == v.shape[2:3] else "B T Hk K"}
    named = {"q": "B T Hk K", "k": "B T Hk K", "v": "B T H V", "bonus": "H K"}
    named |= {"initial_state": "B H K V", "segment_ids": "B T"}
    return named if g is None else named | {"g": gates[g.ndim]}


def run(q, k, v, g, *, gv, bonus, scale, initial_state, segment_ids):
    """See ``gla``."""
    (B, T, H, _), low = v.shape, jnp.result_type(q, k, v)
    if g is None or g.ndim < 4:
        g = jnp.zeros((B, T, H), jnp.float32) if g is None else jnp.broadcast_to(g, v.shape[:3])
    else:
        g = repeat_heads(g, H)
    if not isinstance(scale, float | int) or scale <= 0:  # the backward pass takes its logarithm
        q, scale = (q * scale).astype(low), 1.0
    q, k, v, g = q.astype(low), k.astype(low), v.astype(low), g.astype(jnp.float32)
    number = None
    if segment_ids is not None:
        number, valid = cut = segments(segment_ids)
        q, k, v, g = (jnp.where(valid.reshape(B, T, *[1] * (x.ndim - 2)), x, 0) for x in (q, k, v, g))
        if bonus is not None:
            own_q = q
            q = jnp.where(cut.first[..., None, None], 0, q)
    if bonus is None:
        return _padded(q, k, v, g, float(scale), initial_state, number)
    # To read before the decay and the write of a token is to read after those of the token before.
    own_q = q if segment_ids is None else own_q
    shift = lambda x: jnp.pad(x, ((0, 0), (1, 0), *[(0, 0)] * (x.ndim - 2)))  # noqa: E731
    late_q = jnp.pad(q, ((0, 0), (0, 1), (0, 0), (0, 0)))
    late = None if number is None else shift(number)
    y, last = _padded(late_q, shift(k), shift(v), shift(g), float(scale), initial_state, late)
    own = [repeat_heads(x, H).astype(jnp.float32) for x in (own_q, k)]
    weight = scale * jnp.sum(own[0] * bonus * own[1], -1, keepdims=True)
    return (y[:, :T] + weight * v).astype(v.dtype), last


def _padded(q, k, v, g, scale: float, state, number):
    """Whole chunks and whole registers, in the kernels' layouts. ``number`` counts the segments, or is None."""
    (T, shape), vector, (K, V) = (v.shape[1], v.shape), g.ndim == 4, state.shape[2:]
    size = {"C": CHUNK[vector], "width": WIDTH[vector], "scale": scale, "vector": vector}
    plan, qkv, ids = arrange(q, k, v, number, **size)
    g = pad(g, -T % plan.C, plan.K - K).swapaxes(1, 2) if vector else rows(plan, g)
    state = jnp.pad(state, ((0, 0), (0, 0), (0, plan.K - K), (0, plan.V - V)))
    y, last = _passes(plan, *qkv, g, state.swapaxes(2, 3) if vector else state, ids)
    last = last.swapaxes(2, 3) if vector else last
    return outputs(plan, y, shape), last[:, :, :K, :V]


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
    return joined(dq, q), joined(dk, k), dv, dg, dfirst, tuple(jnp.zeros_like(x) for x in ids)


_passes.defvjp(_forward, _backward)
