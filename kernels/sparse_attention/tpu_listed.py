"""What the kernel of lists works on: arrays in the layout of its steps."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..tpu.mosaic import LANES
from . import tpu_lists
from .listed import Listed
from .softmax import merge
from .tpu_tile import Plan, whole

ROWS = 128
"""The most queries of a tile, of all heads that share keys; ..."""
SCORES = 2**18
"""... fewer where there are more scores than this, but never less than one of each head."""
STEP = 256
"""The queries of a step's tiles, ..."""
TOGETHER = 2**19
"""... of which as many are worked on side by side as have no more scores than this."""
SPAN = 28 * 2**20
"""Bytes of vector memory for keys, values and their gradients."""


def tile(size: int, queries: int, n: int, R: int) -> tuple[int, int]:
    """Keys of a block as they are read, and queries of a tile."""
    size = -(-size // 8) * 8
    rows = min(ROWS, SCORES // whole(n * size))
    return size, max((c for c in range(1, queries + 1) if queries % c == 0 and c * R <= rows), default=1)


class Layout:
    """The plan of a call, and arrays as its steps take them: padded on the left to whole steps before the queries."""

    def __init__(self, lists: Listed, q: Float[Array, "B T G R K"], k: Float[Array, "B S Hk K"], v, *, gradients: bool):
        self.B, self.T, self.G, self.R, _ = q.shape
        self.S, self.lists = k.shape[1], lists
        n = lists.start.shape[3]
        size, c = tile(lists.size, lists.queries, n, self.R)
        even = 16 // math.gcd(c, 16)  # so many lists have whole registers of tokens
        m = min(-(-STEP // (c * self.R * even)), -(-self.T // (c * even))) * even
        self.left = -(self.S - self.T) % (m * c)
        before, self.blocks = (self.left + self.S - self.T) // (m * c), -(-self.T // (m * c)) * m
        steps = before + self.blocks // m
        each = 4 * sum(whole(x.shape[3]) for x in (k, v)) * (3 if gradients else 1)
        spans = -(-steps // max(1, SPAN // (each * m * c)))
        fits = max(1, TOGETHER // (c * self.R * whole(n * size)))
        together = max(t for t in (1, 2, 4, 8) if m % t == 0 and t <= fits)
        self.plan = Plan(c, self.R, m, together, n, size, before, steps, spans, -(-steps // spans))

    def wide(self, x):
        """The width padded to whole registers."""
        return jnp.pad(x, (*[(0, 0)] * (x.ndim - 1), (0, -x.shape[-1] % LANES)))

    def queries(self, x):
        """``[B, T, G, R, width]`` by lists, ``[B, G, N, queries R, width]``."""
        (B, _, G, R, width), N, c = x.shape, self.blocks, self.plan.queries
        x = jnp.pad(x, ((0, 0), (0, N * c - self.T), *[(0, 0)] * 3))
        return jnp.moveaxis(x.reshape(B, N, c, G, R, width), 3, 1).reshape(B, G, N, c * R, width)

    def back(self, x):
        """The opposite."""
        x = x.reshape(*x.shape[:3], self.plan.queries, self.R, -1)
        return jnp.moveaxis(x, 1, 3).reshape(self.B, -1, self.G, self.R, x.shape[-1])[:, : self.T]

    def rows(self, x):
        """``[B, T, G, R]`` as ``[B, G, N, 1, queries R]``."""
        return self.queries(x[..., None]).swapaxes(3, 4)

    def keys(self, x):
        """``[B, S, Hk, width]`` as ``[B, Hk, S, width]``, the width padded to whole registers."""
        right = self.plan.steps * self.plan.tokens - self.left - self.S
        return self.wide(jnp.pad(x, ((0, 0), (self.left, right), (0, 0), (0, 0)))).swapaxes(1, 2)

    def keys_back(self, x, of):
        """The gradient of ``of`` from those of the spans, summed over what shares a head of it."""
        x = x[:, :, :, :, : self.plan.span * self.plan.tokens]
        x = x.transpose(0, 2, 4, 1, 3, 5).reshape(self.B, -1, self.G, x.shape[3] * LANES)
        x = x[:, self.left : self.left + self.S, :, : of.shape[3]]
        return x.reshape(*of.shape[:3], -1, of.shape[3]).sum(3).astype(of.dtype)

    def limits(self) -> list:
        """The last key that each query sees and, if there are documents, the first."""
        N, c = self.blocks, self.plan.queries
        pad = lambda x: jnp.pad(x + self.left, ((0, 0), (0, N * c - self.T)), constant_values=-1)  # noqa: E731
        return [pad(x).reshape(self.B, N, 1, c) for x in (self.lists.hi, self.lists.lo) if x is not None]

    def index(self):
        """The lists as the kernels read them, without what no query of theirs can see."""
        plan, lists, N = self.plan, self.lists, self.blocks
        last = jnp.max(self.limits()[0], (2, 3))[:, :, None, None]

        def of_tiles(x):
            x = jnp.repeat(x, lists.queries // plan.queries, axis=1)[:, :N]
            return jnp.pad(x, ((0, 0), (0, N - x.shape[1]), (0, 0), (0, 0)))

        start, end = (of_tiles(x) + self.left for x in (lists.start, lists.end))
        spans = []
        for first in range(0, plan.spans * plan.span * plan.tokens, plan.span * plan.tokens):
            begin, stop = jnp.maximum(start, first), jnp.minimum(end, first + plan.span * plan.tokens)
            used = (begin < stop) & (begin <= last)
            both = [jnp.where(used, x - first, 0) for x in (begin, stop)]
            if plan.spans > 1:
                order = jnp.argsort(~used, axis=3, stable=True)
                both = [jnp.take_along_axis(x, order, axis=3) for x in both]
            spans.append(jnp.concatenate([*both, jnp.sum(used, 3, keepdims=True, dtype=jnp.int32)], 3))
        return jnp.stack(spans, 1).transpose(0, 3, 1, 2, 4)[:, :, :, :, None]  # [B, G, spans, N, 1, 2 n + 1]


@jax.custom_vjp
def attend(q, k, v, lists: Listed):
    """q ``[B, T, G, R, K]``, k and v ``[B, S, Hk, ...]``, where G is a multiple of Hk."""
    return _forward(q, k, v, lists)[0]


def _forward(q, k, v, lists):
    layout = Layout(lists, q, k, v, gradients=False)
    arrays = layout.queries(layout.wide(q)), layout.keys(k), layout.keys(v), layout.limits()
    y, lse = tpu_lists.forward(layout.plan, layout.index(), *arrays)
    width = v.shape[3]
    parts = [(layout.back(y[n])[..., :width], layout.back(lse[n].swapaxes(3, 4))[..., 0]) for n in range(y.shape[0])]
    if len(parts) > 1:
        parts = [merge([(y.astype(jnp.float32), lse) for y, lse in parts])]
    ((y, lse),) = parts
    return y.astype(v.dtype), (q, k, v, lists, y.astype(v.dtype), lse)


def _backward(residuals, dy):
    q, k, v, lists, y, lse = residuals
    delta = jnp.sum(dy.astype(jnp.float32) * y.astype(jnp.float32), -1)
    layout = Layout(lists, q, k, v, gradients=True)
    arrays = layout.queries(layout.wide(q)), layout.keys(k), layout.keys(v), layout.limits()
    cotangents = layout.queries(layout.wide(dy.astype(q.dtype))), layout.rows(lse), layout.rows(delta)
    dq, dk, dv = tpu_lists.backward(layout.plan, layout.index(), *arrays, *cotangents)
    dq = layout.back(dq[0] if layout.plan.spans == 1 else jnp.sum(dq, 0, dtype=jnp.float32))[..., : q.shape[4]]
    return dq.astype(q.dtype), layout.keys_back(dk, k), layout.keys_back(dv, v), None


attend.defvjp(_forward, _backward)
