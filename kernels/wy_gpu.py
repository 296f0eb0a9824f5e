"""The delta rule and gla on Hopper GPUs, from what is made for all chunks at once and the walk over them.

S_t = decayed S_{t-1} + k_t u_t^T        u_t = v_t - (decayed S_{t-1})^T a_t        y_t = scale S_t^T q_t
"""

from functools import partial

import jax
import jax.numpy as jnp

from . import states_gpu, weights_gpu
from .decay_gpu import sums
from .mosaic_gpu import TILE


def run(q, k, v, a, g, scale: float, state, number):
    """``y`` and the last state of bfloat16 arrays ``[B, T, heads, width]``; pads them to whole chunks and tiles.

    ``g`` are natural-log gates ``[B, T, H]``; ``number`` counts the segments, or is None. Padding tokens are zeros.
    """
    (T, K), V, late = (q.shape[1], q.shape[3]), v.shape[3], (0, -q.shape[1] % TILE)
    pad = lambda x: jnp.pad(x, ((0, 0), late, (0, 0), (0, -x.shape[3] % TILE)))  # noqa: E731
    border = None
    if number is not None:
        border = jnp.pad(jnp.diff(number, axis=1, prepend=0) > 0, ((0, 0), late))
    state = jnp.pad(state, ((0, 0), (0, 0), (0, -K % TILE), (0, -V % TILE)))
    g = jnp.pad(g, ((0, 0), late, (0, 0)))
    y, last = _passes(scale, pad(q), pad(k), pad(v), pad(a), g, state, border)
    return y[:, :T, :, :V], last[:, :, :K, :V]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _passes(scale, q, k, v, a, g, first, border):
    return _walk(scale, False, q, k, v, a, g, first, border)[0]


def _walk(scale, keep, q, k, v, a, g, first, border):
    upto = sums(g, border)
    P, X = weights_gpu.forward(scale, q, k, a, upto)
    x = {"q": q, "k": k, "v": v, "a": a, "P": P, "X": X, "sums": upto}
    y, last, *kept = states_gpu.forward(scale, keep, x, first)
    return (y, last), (x, *kept)


def _forward(scale, *arguments):
    return _walk(scale, True, *arguments)


def _backward(scale, residuals, cotangents):
    x, states, u = residuals
    dy, dlast = cotangents
    q, k, a, upto = (x[name] for name in ("q", "k", "a", "sums"))
    dv, dstates, dfirst = states_gpu.backward(scale, x, dy, dlast)
    dq, dk, da, dg = weights_gpu.backward(scale, q, k, a, upto, u, dv, dy, states, dstates)
    return joined(dq, q), joined(dk, k), dv, da, dg, dfirst, None


_passes.defvjp(_forward, _backward)


def joined(dx: jax.Array, x: jax.Array) -> jax.Array:
    """The sum over the value heads that share a key head."""
    if dx.shape == x.shape:
        return dx
    return dx.reshape(*x.shape[:3], -1, x.shape[3]).astype(jnp.float32).sum(3).astype(x.dtype)
