"""Gated linear attention on Hopper GPUs: pads, and ties the kernels' passes together."""

from functools import partial

import jax
import jax.numpy as jnp

from .. import gpu, wy_gpu
from ..decay_gpu import sums
from ..mosaic_gpu import TILE
from . import arguments, gpu_scalar
from .arguments import OUTPUTS, axes

__all__ = ["OUTPUTS", "axes", "run", "unsupported"]


def unsupported(q, k, v, *, gv, **_) -> str | None:
    """What does not run here, in words."""
    if reason := gpu.unsupported():
        return reason
    if {x.dtype.name for x in (q, k, v)} != {"bfloat16"}:
        return "q, k and v must be bfloat16"
    if max(q.shape[3], v.shape[3]) > 256:
        return f"K and V may be at most 256, not {q.shape[3]} and {v.shape[3]}"
    return "there is no kernel for a decay of the value axis" if gv is not None else None


def run(q, k, v, g, **rest):
    """See ``gla``."""
    return arguments.run(_padded, q, k, v, g, **rest)


def _padded(q, k, v, g, scale: float, state, number):
    """Whole chunks and whole tiles. ``number`` counts the segments, or is None."""
    if g.ndim == 4:
        return wy_gpu.run(q, k, v, None, g, scale, state, number)
    (T, K), V = (q.shape[1], q.shape[3]), v.shape[3]
    pad = lambda x, n: jnp.pad(x, ((0, 0), (0, -T % TILE), (0, 0), (0, n)))  # noqa: E731
    q, k, v = pad(q, -K % TILE), pad(k, -K % TILE), pad(v, -V % TILE)
    g = jnp.pad(g, ((0, 0), (0, -T % TILE), (0, 0)))
    border = None
    if number is not None:
        border = jnp.pad(jnp.diff(number, axis=1, prepend=0) > 0, ((0, 0), (0, -T % TILE)))
    state = jnp.pad(state, ((0, 0), (0, 0), (0, -K % TILE), (0, -V % TILE)))
    y, last = _passes(scale, q, k, v, g, state, border)
    return y[:, :T, :, :V], last[:, :, :K, :V]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _passes(scale, q, k, v, g, first, border):
    return tuple(gpu_scalar.forward(scale, False, q, k, v, sums(g, border), first))


def _forward(scale, q, k, v, g, first, border):
    upto = sums(g, border)
    y, last, kept = gpu_scalar.forward(scale, True, q, k, v, upto, first)
    return (y, last), (q, k, v, kept, upto)


def _backward(scale, residuals, cotangents):
    q, k, v, kept, upto = residuals
    dy, dlast = cotangents
    dq, dk, dv, dg, dfirst = gpu_scalar.backward(scale, q, k, v, dy, kept, upto, dlast)

    return wy_gpu.joined(dq, q), wy_gpu.joined(dk, k), dv.astype(v.dtype), dg, dfirst, None


_passes.defvjp(_forward, _backward)
