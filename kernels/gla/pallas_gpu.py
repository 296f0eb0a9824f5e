"""Gated linear attention on Hopper GPUs: a gate a channel by ``gpu.wy``, and kernels of its own for one a head.

Without anything to invert, these do all of a chunk in one pass.
"""

from functools import partial

import jax

from .. import gpu
from ..gpu import span_states, spans, wy
from ..gpu.decay import sums
from . import arguments, gpu_scalar
from .arguments import OUTPUTS, axes

__all__ = ["OUTPUTS", "axes", "run", "unsupported"]


def unsupported(q, k, v, *, gv, **_) -> str | None:
    """What does not run here, in words."""
    if reason := gpu.unsupported_heads(q, k, v):
        return reason
    return "there is no kernel for a decay of the value axis" if gv is not None else None


def run(q, k, v, g, **rest):
    """See ``gla``."""

    def kernels(q, k, v, g, *arguments):
        return wy.run(q, k, v, None, g, *arguments, passes=_passes if g.ndim == 3 else None)

    return arguments.run(kernels, q, k, v, g, **rest)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _passes(S, scale, q, k, v, _, g, first, border):
    return _run(S, scale, False, q, k, v, g, first, border)[0]


def _run(S, scale, keep, q, k, v, g, first, border):
    upto = sums(g, border)
    first, across = span_states.entering(S, {"k": k, "v": v, "sums": upto}, first)
    y, last, *kept = gpu_scalar.forward(scale, keep, q, k, v, upto, first)
    return (y, spans.of_span(S, -1, last)), (q, k, v, upto, across, *kept)


def _forward(S, scale, q, k, v, _, g, first, border):
    return _run(S, scale, True, q, k, v, g, first, border)


def _backward(S, scale, residuals, cotangents):
    q, k, v, upto, across, kept = residuals
    dy, dlast = cotangents
    dlast = span_states.leaving(S, scale, {"q": q, "sums": upto}, dy, dlast, across)
    dq, dk, dv, dg, dfirst = gpu_scalar.backward(scale, q, k, v, dy, kept, upto, dlast)
    return wy.joined(q, dq), wy.joined(k, dk), dv.astype(v.dtype), None, dg, spans.of_span(S, 0, dfirst), None


_passes.defvjp(_forward, _backward)
