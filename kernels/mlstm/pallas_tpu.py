"""mLSTM on TPUs: pads, chooses blocks, and ties the kernels' passes together."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from .. import tpu
from ..gla.pallas_tpu import CHUNK, WIDTH
from ..gla.tpu_blocks import Plan, arrange, joined, outputs, rows, specs
from ..segments import segments
from ..tpu.mosaic import LANES, LOG2E, call
from .arguments import OUTPUTS, axes
from .tpu_chunks import backward_kernel, forward_kernel
from .tpu_gates import CLOSED

__all__ = ["OUTPUTS", "axes", "run", "unsupported"]


def unsupported(q, k, v, **_) -> str | None:
    """What does not run here, in words."""
    return tpu.unsupported_heads(q, k, v)


def run(q, k, v, i, f, *, scale, initial_state, segment_ids):
    """See ``mlstm``."""
    (B, T, H, V), K, low = v.shape, q.shape[3], jnp.result_type(q, k, v)
    if not isinstance(scale, float | int) or scale <= 0:
        q, scale = q * scale, 1.0
    q, k, v = (x.astype(low) for x in (q, k, v))
    g, i = jax.nn.log_sigmoid(f.astype(jnp.float32)), i.astype(jnp.float32)
    number = None
    if segment_ids is not None:
        number, valid = segments(segment_ids)
        cut = lambda x, fill=0.0: jnp.where(valid.reshape(B, T, *[1] * (x.ndim - 2)), x, fill)  # noqa: E731
        q, k, v, g, i = cut(q), cut(k), cut(v), cut(g), cut(i, CLOSED)
    plan, qkv, ids = arrange(q, k, v, number, C=CHUNK[False], width=WIDTH[False], scale=float(scale))
    C, n, m = initial_state
    C = jnp.pad(C, ((0, 0), (0, 0), (0, plan.K - K), (0, plan.V - V)))
    lines = jnp.concatenate([jnp.broadcast_to(m[..., None] * LOG2E, (B, H, LANES)), n], 2)
    lines = jnp.pad(lines, ((0, 0), (0, 0), (0, plan.K - K))).reshape(B, H // plan.heads, plan.heads, -1)
    lines = jnp.pad(lines, ((0, 0), (0, 0), (0, -plan.heads % 8), (0, 0)))
    y, C, lines = _passes(plan, *qkv, rows(plan, g), rows(plan, i, CLOSED), C.swapaxes(2, 3), lines, ids)
    lines = lines[:, :, : plan.heads].reshape(B, H, -1)
    m = jax.lax.stop_gradient(lines[..., 0]) / LOG2E
    return outputs(plan, y, v.shape), (C.swapaxes(2, 3)[:, :, :K, :V], lines[..., LANES : LANES + K], m)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _passes(plan, q, k, v, g, i, C, lines, ids):
    return tuple(_forward(plan, False, q, k, v, g, i, C, lines, ids))


def _keep(plan, q, k, v, g, i, C, lines, ids):
    y, last, last_lines, *kept = _forward(plan, True, q, k, v, g, i, C, lines, ids)
    return (y, last, last_lines), (q, k, v, g, i, y, kept, ids)


def _specs(plan: Plan, g: jax.Array, state: jax.Array, group: int, reverse: bool) -> dict[str, pl.BlockSpec]:
    """``gla``'s, and those of lines and of what tokens keep."""
    N, rows = g.shape[3] // plan.C, g.shape[2]
    chunk = (lambda c: N - 1 - c) if reverse else (lambda c: c)
    lines = rows, LANES + plan.K
    return specs(plan, chunk, g, (plan.V, plan.K), max(1, group // plan.heads)) | {
        "lines": pl.BlockSpec((1, 1, *lines), lambda b, h, c: (b, h, 0, 0)),
        "kept lines": pl.BlockSpec((1, 1, 1, *lines), lambda b, h, c: (b, h, chunk(c), 0, 0)),
        "norms": pl.BlockSpec((1, 1, 2 * rows, plan.C), lambda b, h, c: (b, h, 0, chunk(c))),
    }


def _forward(plan, keep, q, k, v, g, i, C, lines, ids):
    (B, blocks, rows, T), H = g.shape, C.shape[1]
    N = T // plan.C
    spec = _specs(plan, g, C, H // q.shape[1], False)
    ins = ("key", "key", "value", "gate", "gate", "state", "lines", *["ids"] * len(ids))
    outs = [("value", v.shape, v.dtype), ("state", C.shape, "float32"), ("lines", lines.shape, "float32")]
    if keep:
        outs.append(("states", (B, H, N, *C.shape[2:]), q.dtype))
        outs.append(("kept lines", (B, blocks, N, *lines.shape[2:]), "float32"))
        outs.append(("norms", (B, blocks, 2 * rows, T), "float32"))
    return call(
        functools.partial(forward_kernel, plan, keep, bool(ids)),
        grid=(B, blocks, N),
        in_specs=[spec[name] for name in ins],
        out_specs=[spec[name] for name, _, _ in outs],
        out_shape=[jax.ShapeDtypeStruct(shape, dtype) for _, shape, dtype in outs],
        name="mlstm_forward",
    )(q, k, v, g, i, C, lines, *ids)


def _backward(plan, residuals, cotangents):
    q, k, v, g, i, y, kept, ids = residuals
    dy, dlast, dlines = cotangents
    (B, blocks, _, T), Hk, H = g.shape, q.shape[1], dlast.shape[1]
    spec = _specs(plan, g, dlast, H // Hk, True)
    ins = ("key", "key", "value", "gate", "gate", "value", "value", "states", "kept lines", "norms", "state", "lines")
    whole = blocks * plan.keys == Hk
    dkey = ("key gradient", (B, blocks * plan.keys, plan.K, T), q.dtype if whole else "float32")
    outs = [dkey, dkey, ("value", v.shape, v.dtype), ("gate", g.shape, "float32"), ("gate", g.shape, "float32")]
    outs += [("state", dlast.shape, "float32"), ("lines", dlines.shape, "float32")]
    dq, dk, dv, dg, di, dC, dlines = call(
        functools.partial(backward_kernel, plan, bool(ids)),
        grid=(B, blocks, T // plan.C),
        in_specs=[spec[name] for name in (*ins, *["ids"] * len(ids))],
        out_specs=[spec[name] for name, _, _ in outs],
        out_shape=[jax.ShapeDtypeStruct(shape, dtype) for _, shape, dtype in outs],
        name="mlstm_backward",
    )(q, k, v, g, i, y, dy, *kept, dlast, dlines, *ids)
    return joined(dq, q), joined(dk, k), dv, dg, di, dC, dlines, tuple(jnp.zeros_like(x) for x in ids)


_passes.defvjp(_keep, _backward)
