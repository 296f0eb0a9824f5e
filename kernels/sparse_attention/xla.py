"""Sparse attention without a T x T array, any device.

What a mask names is cut in parts that share no key: a ``Band``, an interval of keys near the query, and ``Lists`` of
blocks. Each part gives the softmax over its keys and the logarithm of its denominator, and from these follows the
softmax over all. The forward pass keeps y and that logarithm; the backward pass makes the probabilities again.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Bool, Int

from ..checks import state_dtype
from ..chunks import matmul_precision
from ..heads import repeat_heads
from .band import Band
from .lists import Lists
from .masks import BigBird, Blocks, Dilated, Mask, Places, Strided, places
from .packing import packing
from .softmax import merge

SINKS = 512
"""Queries of a block that share their document's first tokens."""


def unsupported(**_) -> str | None:
    """Everything runs."""
    return None


@jax.jit
def run(q, k, v, *, mask, scale, segment_ids):
    """See ``sparse_attention``."""
    if isinstance(mask, Dilated) and isinstance(mask.dilation, tuple):
        return by_head(run, q, k, v, mask, scale, segment_ids)
    dtype, G = state_dtype(q, k, v), k.shape[2]
    q, k, values, parts, back = cut(q, k, v, mask, segment_ids)
    if isinstance(mask, Blocks):  # where each query head has lists of its own, it has keys of its own
        G = max(G, mask.start.shape[2])
    q = rearrange(q.astype(dtype) * jnp.asarray(scale, dtype), "B T (G R) K -> B T G R K", G=G)
    k, values = (repeat_heads(x, G).astype(dtype) for x in (k, values))
    y: Array = _attend(v.dtype, q, k, values, parts)
    return back(rearrange(y, "B T G R V -> B T (G R) V").astype(v.dtype))


def cut(q, k, v, mask: Mask, segment_ids):
    """q, k and v with padding out of the way, the parts that they see, and what brings the outputs back."""
    (B, S, Hk, _), T = k.shape, q.shape[1]
    packed, back = segment_ids is not None, lambda y: y
    valid = segment_ids[:, S - T :] >= 0 if packed else jnp.ones((B, T), bool)
    if packed and not isinstance(mask, Blocks):  # a window's keys are neighbours only where no padding is between them
        all_, queries = packing(segment_ids), packing(segment_ids[:, S - T :])
        k, v, segment_ids = map(all_.pack, (k, v, segment_ids))
        q, valid, back = queries.pack(q), queries.pack(valid), queries.unpack
    return q, k, v, _parts(mask, valid, Hk, places((B, S), segment_ids), packed=packed), back


def by_head(run, q, k, v, mask: Dilated, scale, segment_ids):
    """``run`` on the heads of each dilation by themselves."""
    H, Hk = q.shape[2], k.shape[2]
    dilations, of = np.unique(mask.dilation, return_inverse=True)
    ys: list = [None] * H
    for n, dilation in enumerate(dilations):
        heads = np.flatnonzero(of == n)
        one = Dilated(mask.window, int(dilation), mask.sinks)
        pick = lambda x, heads: jnp.stack([x[:, :, h] for h in heads], axis=2)  # noqa: E731
        part = pick(q, heads), *(pick(x, heads // (H // Hk)) for x in (k, v))
        y = run(*part, mask=one, scale=scale, segment_ids=segment_ids)
        for i, head in enumerate(heads):
            ys[head] = y[:, :, i]
    return jnp.stack(ys, axis=2)


def _parts(mask: Mask, valid: Bool[Array, "B T"], Hk: int, key: Places, *, packed: bool) -> tuple[Band | Lists, ...]:
    """What the last T tokens, those of them that are not padding, see by ``mask``, in parts that share no key."""
    (B, S), T = key.position.shape, valid.shape[1]
    index = jnp.broadcast_to(jnp.arange(S - T, S, dtype=jnp.int32), (B, T))
    document, p = (x[:, S - T :] for x in key[:2])
    hi = jnp.where(valid, index, -1)
    if isinstance(mask, Blocks):
        both = (document, jnp.where(key.valid, key.document, -1)) if packed else None
        return (Lists(jnp.asarray(mask.start), jnp.zeros_like(hi), hi, both, mask.size, mask.query_block),)
    begin = index - p  # the document's first token
    after = begin + mask.sinks
    parts: list[Band | Lists] = []

    def band(lo, hi, reach: int, dilation: int = 1) -> None:
        parts.append(Band(jnp.maximum(lo, after), hi, min(reach, (S - 1) // dilation), dilation))

    def lists(start: Int[Array, "B N #Hk n"], lo, hi, size: int, queries: int) -> None:
        parts.append(Lists(start, lo, hi, None, size, queries))

    if isinstance(mask, Dilated):
        dilation = int(np.max(mask.dilation))
        band(index - mask.window * dilation + 1, hi, mask.window - 1, dilation)
    elif isinstance(mask, Strided):
        band(index - mask.stride + 1, hi, mask.stride - 1)
        band(begin, hi - mask.stride, S, mask.stride)
    elif isinstance(mask, BigBird):
        own = p // mask.block
        band(begin + (own - mask.window + 1) * mask.block, hi, mask.window * mask.block - 1)
        if mask.random:
            queries = 1 if packed else math.gcd(mask.block, S - T)  # then no block of queries is in two of the mask's
            drawn = jnp.asarray(mask.table(Hk, S))[:, own[:, ::queries]]
            start = begin[None, :, ::queries, None] + drawn * mask.block
            lists(jnp.moveaxis(jnp.where(drawn < 0, -1, start), 0, 2), after, hi, mask.block, queries)
    else:
        band(index - mask.window + 1, hi, mask.window - 1)
    if mask.sinks:  # documents begin anywhere
        queries = 1 if packed else min(SINKS, T)
        lists(begin[:, ::queries, None, None], begin, hi, mask.sinks, queries)
    return tuple(parts)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(dtype, q, k, v, parts):
    """q ``[B, T, G, R, K]``, k and v ``[B, S, G, ...]``; ``dtype``, that of the inputs, says how to multiply."""
    return _forward(dtype, q, k, v, parts)[0]


def _forward(dtype, q, k, v, parts):
    with matmul_precision(dtype):
        done = [part.forward(q, k, v) for part in parts]
    y, lse = done[0] if len(done) == 1 else merge(done)
    return y, (q, k, v, parts, y, lse)


def _backward(dtype, residuals, dy):
    q, k, v, parts, y, lse = residuals
    delta = jnp.sum(dy * y, axis=-1)
    with matmul_precision(dtype):
        grads = [part.backward(q, k, v, dy, lse, delta) for part in parts]
    return *(sum(g[1:], g[0]) for g in zip(*grads, strict=True)), None


_attend.defvjp(_forward, _backward)
