"""mLSTM on Hopper GPUs: finds the stabiliser, pads, and ties the kernels' passes together.

m is a running maximum of sums: an associative scan of ``[B, T, H]``. With it the decay, ``log sigmoid(f_t) + m_{t-1} -
m_t``, and the weight of what is written, ``exp(i_t - m_t)``, are at most 1, as the kernels take them.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from .. import wy_gpu
from ..decay_gpu import gate_gradients, sums
from ..mosaic_gpu import TILE
from ..segments import segments
from .gpu_chunks import backward, forward
from .reference import floor

OUTPUTS = ("B T H V", ("B H K V", "B H K", "B H"))


def axes(**_) -> dict[str, Any]:
    """The axes of the arrays."""
    named = {"q": "B T Hk K", "k": "B T Hk K", "v": "B T H V", "i": "B T H", "f": "B T H"}
    return named | {"initial_state": OUTPUTS[1], "segment_ids": "B T"}


def unsupported(q, k, v, **_) -> str | None:
    """What does not run here, in words."""
    return wy_gpu.unsupported(q, k, v)


@partial(jax.jit, static_argnames="scale")
def _run(q, k, v, i, f, *, scale, initial_state, segment_ids):
    (_, T, _, V), K, low = v.shape, q.shape[3], jnp.result_type(q, k, v)
    g, i = jax.nn.log_sigmoid(f.astype(jnp.float32)), i.astype(jnp.float32)
    first = jnp.zeros((*v.shape[:2], 1), bool)
    valid = jnp.ones_like(first)
    if segment_ids is not None:
        seg = segments(segment_ids)
        first, valid = seg.first[..., None], seg.valid[..., None]
        g, i = jnp.where(valid, g, 0), jnp.where(valid, i, -jnp.inf)
    C, n, m = initial_state
    top = stop_gradient(running_maximum(g, i, m, first))
    before = jnp.where(first, 0, jnp.concatenate([m[:, None], top[:, :-1]], 1))

    def pad(x, *wide, fill=0.0):
        late = () if x.ndim == 3 and wide else ((0, -T % TILE),)
        widths = ((0, 0), *late, *[(0, 0)] * (x.ndim - 1 - len(late) - len(wide)), *[(0, -w % TILE) for w in wide])
        return jnp.pad(x, widths, constant_values=fill)

    q, k, v = (pad(x.astype(low), x.shape[3]) for x in (q, k, v))
    border = None if segment_ids is None else jnp.pad(first[..., 0], ((0, 0), (0, -T % TILE)))
    C = jnp.pad(C, ((0, 0), (0, 0), (0, -K % TILE), (0, -V % TILE)))
    n = jnp.pad(n, ((0, 0), (0, 0), (0, -K % TILE)))
    gates = pad(g + before - top), pad(i - top, fill=-jnp.inf), pad(floor(top), fill=1.0)
    y, C, n = _passes(scale, q, k, v, *gates, C, n, border)
    y = jnp.where(valid[..., None], y[:, :T, :, :V], 0)
    return y, (C[:, :, :K, :V], n[:, :, :K], top[:, -1])


def run(q, k, v, i, f, *, scale, **rest):
    """See ``mlstm``."""
    if not isinstance(scale, float | int) or scale <= 0:  # the kernels take its logarithm
        q, scale = (scale * q).astype(q.dtype), 1.0
    return _run(q, k, v, i, f, scale=float(scale), **rest)


def running_maximum(g, i, m, first):
    """``m_t = max(g_t + m_{t-1}, i_t)``, ``[B, T, H]``; where a segment begins, m_{t-1} is 0."""
    i = jnp.where(first, jnp.maximum(g, i), i)
    g = jnp.where(first, -jnp.inf, g)

    def join(a, b):
        return a[0] + b[0], jnp.maximum(a[1] + b[0], b[1])

    g, i = jax.lax.associative_scan(join, (g, i), axis=1)
    return jnp.maximum(m[:, None] + g, i)


def _lines(*numbers: jax.Array) -> jax.Array:
    """Numbers of tokens ``[B, T, H]`` as the kernels have them, ``[B, H, N, len(numbers), 64]``."""
    B, _, H = numbers[0].shape
    return jnp.stack([x.swapaxes(1, 2).reshape(B, H, -1, TILE) for x in numbers], 3)


def _tokens(line: jax.Array) -> jax.Array:
    """The inverse, of one."""
    return line.reshape(*line.shape[:2], -1).swapaxes(1, 2)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _passes(scale, q, k, v, g, log_weight, least, C, n, border):
    return tuple(forward(scale, False, q, k, v, sums(g, border), _lines(jnp.exp(log_weight), least), C, n))


def _forward(scale, q, k, v, g, log_weight, least, C, n, border):
    upto, weight = sums(g, border), jnp.exp(log_weight)
    y, C, n, norms, *kept = forward(scale, True, q, k, v, upto, _lines(weight, least), C, n)
    return (y, C, n), (q, k, v, y, norms, kept, upto, weight, least)


def _backward(scale, residuals, cotangents):
    q, k, v, y, norms, kept, upto, weight, least = residuals
    dy, dC, dn = cotangents
    norm, dy = _tokens(norms), dy.astype(jnp.float32)
    divisor = jnp.maximum(jnp.abs(norm), least)
    along = jnp.sum(dy * y, -1) / divisor
    dnorm = jnp.where(jnp.abs(norm) > least, -jnp.sign(norm) * along, 0)
    dread = (dy / divisor[..., None]).astype(v.dtype)
    dq, dk, dv, pieces, dC, dn = backward(scale, q, k, v, dread, *kept, upto, _lines(weight, dnorm), dC, dn)
    dg, dweight = _tokens(gate_gradients(pieces[..., :4, :])), _tokens(pieces[..., 4, :])
    return wy_gpu.joined(q, dq), wy_gpu.joined(k, dk), dv.astype(v.dtype), dg, dweight, None, dC, dn, None


_passes.defvjp(_forward, _backward)
