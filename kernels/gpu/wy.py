"""The delta rule and gla on Hopper GPUs: what is made for all chunks at once, and then a walk over the states.

    S_t = decayed S_{t-1} + k_t u_t^T        u_t = v_t - (decayed S_{t-1})^T a_t        y_t = scale S_t^T q_t

Without a, u is v. If ``undecayed``, a reads S_{t-1} as it is.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from . import span_states, spans, vector_weights, walk, weights
from .decay import sums
from .mosaic import TILE


def run(q, k, v, a, g, scale: float, state, number, *, undecayed=False, passes: Callable | None = None):
    """``y`` and the last state of bfloat16 arrays ``[B, T, heads, width]``; pads them to whole chunks and tiles.

    ``g`` are natural-log gates ``[B, T, H]`` or ``[B, T, H, K]``; ``number`` counts the segments, or is None. Padding
    tokens are zeros. ``a`` may be None if the gates are of channels, and ``undecayed`` only then. ``passes`` may take
    the place of the walk here.
    """
    (T, K), (B, _, H, V) = (q.shape[1], q.shape[3]), v.shape
    S = spans.count(B * H * -(-V // TILE), T, _price(-(-K // TILE), -(-V // TILE), a is not None, g.ndim == 4))
    late = (0, -T % (TILE * S))

    def pad(x):
        return jnp.pad(x, [(0, 0), late, (0, 0), *([(0, -x.shape[3] % TILE)] if x.ndim == 4 else [])])

    border = None
    if number is not None:
        border = jnp.pad(jnp.diff(number, axis=1, prepend=0) > 0, ((0, 0), late))
        if undecayed:  # nothing is left of a segment where the next begins
            a = jnp.where(border[:, : a.shape[1], None, None], 0, a)
    state = jnp.pad(state, ((0, 0), (0, 0), (0, -K % TILE), (0, -V % TILE)))
    q, k, v, a, g = jax.tree.map(pad, (q, k, v, a, g))
    q, k, v, a, g, border = jax.tree.map(partial(spans.cut, S), (q, k, v, a, g, border))
    y, last = (passes or partial(_passes, undecayed))(S, scale, q, k, v, a, g, state, border)
    return spans.joined(S, y)[:, :T, :, :V], last[:, :, :K, :V]


def _price(keys: int, values: int, erases: bool, by_channel: bool) -> float:
    """What a walk for states alone costs, beside one with outputs: products of tiles, of which K and V have so many.

    Where something is erased, the identity has K columns beside the V.
    """
    if erases:
        return (2 * keys + 1) / (3 * keys + 2) * (1 + keys / values)
    return keys / (2 * keys + 1 if by_channel else 3 * keys + 1)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _passes(undecayed, S, scale, q, k, v, a, g, first, border):
    """Of spans, whose ``first`` and last state are those of the S together."""
    return _walk(undecayed, S, scale, False, q, k, v, a, g, first, border)[0]


def _walk(undecayed, S, scale, keep, q, k, v, a, g, first, border):
    if g.ndim == 4:
        high, low, through = vector_weights.halves(g, border)
        gates = high, low
        x = {"v": v, "through": through} | vector_weights.forward(scale, undecayed, q, k, a, high, low)
    else:
        gates = upto = sums(g, border)
        P, X = weights.forward(scale, q, k, a, upto)
        x = {"q": q, "k": k, "v": v, "a": a, "P": P, "X": X, "sums": upto}
    first, across = span_states.entering(S, x, first)
    y, last, *kept = walk.forward(scale, keep, x, first)
    return (y, spans.of_span(S, -1, last)), (q, k, a, gates, x, across, *kept)


def _forward(undecayed, S, scale, *arguments):
    return _walk(undecayed, S, scale, True, *arguments)


def _backward(undecayed, S, scale, residuals, cotangents):
    q, k, a, gates, x, across, states, *u = residuals
    u, (dy, dlast) = u[0] if u else x["v"], cotangents
    dlast = span_states.leaving(S, scale, x, dy, dlast, across)
    dv, dstates, dfirst = walk.backward(scale, x, dy, dlast)
    walked = u, dv, dy, states, dstates
    if "through" in x:
        dq, dk, da, dg = vector_weights.backward(scale, undecayed, q, k, a, (*gates, x["through"]), walked)
    else:
        dq, dk, da, dg = weights.backward(scale, q, k, a, (gates,), walked)
    return joined(q, dq), joined(k, dk), dv, da, dg, spans.of_span(S, 0, dfirst), None


_passes.defvjp(_forward, _backward)


def joined(x: jax.Array, dx) -> jax.Array:
    """The sum over the value heads that share a key head."""
    if dx.shape == x.shape:
        return dx
    return dx.reshape(*x.shape[:3], -1, x.shape[3]).astype(jnp.float32).sum(3).astype(x.dtype)
