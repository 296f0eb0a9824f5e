"""Sparse attention by kernels: what is near a query by a kernel, the few far keys as elsewhere, and both merged."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange

from ..chunks import matmul_precision
from .band import Band
from .masks import BigBird, Dilated, Strided, Window
from .softmax import merge
from .xla import by_head, cut

OUTPUTS = "B T H V"


class Kernels(NamedTuple):
    """``forward`` and ``backward`` of parts by kernels. Hashable: what is traced is kept for it."""

    forward: Callable
    backward: Callable
    takes: Callable = lambda part, R: isinstance(part, Band)
    """Whether there is one for a part, of R query heads to a key head."""
    plain: bool = False
    """Whether a band may come without limits, where all within its reach is seen."""
    far: bool = False
    """Whether a band may be far from its queries: then the sinks are one."""


def axes(mask, **_) -> dict[str, str]:
    """The axes of the arrays; where a mask differs by head, heads are not spread."""
    own = isinstance(mask, Dilated) and isinstance(mask.dilation, tuple)
    differs = own or (isinstance(mask, BigBird) and mask.random)
    heads, keys = ("heads", "key_heads") if differs else ("H", "Hk")
    return {"q": f"B T {heads} K", "k": f"B S {keys} K", "v": f"B S {keys} V", "segment_ids": "B S"}


@partial(jax.jit, static_argnums=0)
def run(kernels: Kernels, q, k, v, *, mask, scale, segment_ids):
    """See ``sparse_attention``."""
    if isinstance(mask, Dilated) and isinstance(mask.dilation, tuple):
        return by_head(partial(run, kernels), q, k, v, mask, scale, segment_ids)
    low, Hk = jnp.result_type(q, k, v), k.shape[2]
    q, k, values, parts, back = cut(q, k, v, mask, segment_ids)
    if kernels.plain and segment_ids is None and not mask.sinks and isinstance(mask, Window | Strided):
        parts = (replace(parts[0], lo=None, hi=None), *parts[1:])  # by position alone
    if kernels.far and mask.sinks:
        *parts, sinks = parts
        hi = jnp.minimum(sinks.hi, sinks.lo + mask.sinks - 1)  # ``lo`` is where the document begins
        parts = *parts, Band(sinks.lo, hi, k.shape[1] - 1)
    q = rearrange((q * scale).astype(low), "B T (G R) K -> B T G R K", G=Hk)
    y = attend(kernels, q, k.astype(low), values.astype(low), parts)
    return back(rearrange(y, "B T G R V -> B T (G R) V").astype(v.dtype))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(kernels: Kernels, q, k, v, parts):
    """q ``[B, T, G, R, K]``, k and v ``[B, S, Hk, ...]``, over parts that share no key."""
    return _forward(kernels, q, k, v, parts)[0]


def _forward(kernels, q, k, v, parts):
    done = []
    for part in parts:
        if kernels.takes(part, q.shape[3]):
            done.append(kernels.forward(part, q, k, v))
        else:
            with matmul_precision(q.dtype):
                done.append(part.forward(*map(widened, (q, k, v))))
    y, lse = done[0] if len(done) == 1 else merge([(widened(y), lse) for y, lse in done])
    return y, (q, k, v, parts, y, lse)


def _backward(kernels, residuals, dy):
    q, k, v, parts, y, lse = residuals
    delta = jnp.sum(widened(dy) * widened(y), -1)
    grads = []
    for part in parts:
        if kernels.takes(part, q.shape[3]):
            grads.append(kernels.backward(part, q, k, v, dy.astype(q.dtype), lse, delta))
        else:
            with matmul_precision(q.dtype):
                grads.append(part.backward(*map(widened, (q, k, v, dy)), lse, delta))
    if len(grads) > 1:
        grads = [[reduce(jnp.add, map(widened, xs)) for xs in zip(*grads, strict=True)]]
    return *(x.astype(of.dtype) for x, of in zip(grads[0], (q, k, v), strict=True)), None


attend.defvjp(_forward, _backward)


def widened(x):
    """In float32."""
    return x.astype(jnp.float32)
