"""mLSTM on Hopper GPUs, by gla's kernels: with the stabiliser known beforehand it is gla with a scalar gate.

m is a running maximum of sums, an associative scan of ``[B, T, H]``. With it the decay, ``log sigmoid(f_t) + m_{t-1} -
m_t``, and the weight of what is written, ``exp(i_t - m_t)``, never exceed 1. The normaliser n is one more column of the
state, in which the weights themselves are written: 64 more where the kernel has whole tiles.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from .. import gpu
from ..gla import pallas_gpu as gla
from ..mosaic_gpu import TILE
from ..segments import segments
from .reference import floor

OUTPUTS = ("B T H V", ("B H K V", "B H K", "B H"))
BROADEST = 192
"""The most columns of V beside which the normaliser fits one kernel's shared memory; beyond it has one of its own."""


def axes(**_) -> dict[str, Any]:
    """The axes of the arrays."""
    named = {"q": "B T Hk K", "k": "B T Hk K", "v": "B T H V", "i": "B T H", "f": "B T H"}
    return named | {"initial_state": OUTPUTS[1], "segment_ids": "B T"}


def unsupported(q, k, v, **_) -> str | None:
    """What does not run here, in words."""
    return gpu.unsupported() or gla.unsupported(q, k, v, None, gv=None)


@jax.jit
def run(q, k, v, i, f, *, scale, initial_state, segment_ids):
    """See ``mlstm``."""
    g, i = jax.nn.log_sigmoid(f.astype(jnp.float32)), i.astype(jnp.float32)
    first = jnp.zeros(v.shape[:2], bool)
    if segment_ids is not None:
        seg = segments(segment_ids)
        first = seg.first
        g, i = jnp.where(seg.valid[..., None], g, 0), jnp.where(seg.valid[..., None], i, -jnp.inf)
    C, n, m = initial_state
    top = stop_gradient(running_maximum(g, i, m, first))
    before = jnp.concatenate([m[:, None], top[:, :-1]], 1)
    before = jnp.where(first[..., None], 0, before)
    decay, write = g + before - top, jnp.exp(i - top)[..., None]

    def read(v, state):
        rest = {"gv": None, "bonus": None, "scale": 1.0, "segment_ids": segment_ids}
        return gla.run((scale * q).astype(q.dtype), k, v.astype(q.dtype), decay, initial_state=state, **rest)

    column = lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, TILE - 1)])  # noqa: E731
    values, V = write * v, v.shape[3]
    if V <= BROADEST:
        y, state = read(jnp.concatenate([values, write], 3), jnp.concatenate([C, n[..., None]], 3))
        (y, norm), (C, n) = ((x[..., :V], x[..., V]) for x in (y, state))
    else:
        (y, C), (norm, n) = read(values, C), read(column(write), column(n[..., None]))
        norm, n = norm[..., 0], n[..., 0]
    divisor = jnp.maximum(jnp.abs(norm.astype(jnp.float32)), floor(top))
    y = (y / divisor[..., None]).astype(v.dtype)
    if segment_ids is not None:
        y = jnp.where(seg.valid[..., None, None], y, 0)
    return y, (C, n, top[:, -1])


def running_maximum(g, i, m, first):
    """``m_t = max(g_t + m_{t-1}, i_t)``, ``[B, T, H]``; where a segment begins, m_{t-1} is 0."""
    i = jnp.where(first[..., None], jnp.maximum(g, i), i)
    g = jnp.where(first[..., None], -jnp.inf, g)

    def join(a, b):
        return a[0] + b[0], jnp.maximum(a[1] + b[0], b[1])

    g, i = jax.lax.associative_scan(join, (g, i), axis=1)
    return jnp.maximum(m[:, None] + g, i)
