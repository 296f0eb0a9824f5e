"""Sparse attention on Hopper GPUs: keys near a query, sinks and blocks by kernels, and what these give merged."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .. import gpu
from ..gpu.mosaic import LOG2E, TILE
from . import gpu_band, gpu_listed, listed, with_kernels
from .band import Band, gather, spread, step_limits
from .listed import Listed
from .lists import Lists
from .masks import Blocks
from .with_kernels import OUTPUTS

__all__ = ["OUTPUTS", "axes", "run", "unsupported"]


def unsupported(q, k, v, *, mask, **_) -> str | None:
    """What does not run here, in words."""
    if reason := gpu.unsupported_heads(q, k, v):
        return reason
    if not isinstance(mask, Blocks):
        return None
    groups, n = mask.start.shape[2:]
    return gpu_listed.unsupported(mask.size, mask.query_block, n, q.shape[2] // max(k.shape[2], groups))


def axes(q, k, mask, **rest) -> dict[str, Any]:
    """The axes of the arrays."""
    return listed.axes(q, k, mask) if isinstance(mask, Blocks) else with_kernels.axes(mask=mask, **rest)


def takes(part: Band | Lists | Listed, R: int) -> bool:
    """Whether a kernel runs the part, whose queries are of R heads for each of its keys."""
    if isinstance(part, Band):
        return True
    return gpu_listed.unsupported(part.size, part.queries, part.start.shape[3], R) is None


def forward(part: Band | Lists | Listed, q, k, v):
    """What the part adds: its softmax, and the logarithm of the denominator."""
    if isinstance(part, Band):
        return forward_band(part, q, k, v)
    return gpu_listed.forward(listed.of_part(part, k.shape[1]), q, k, v)


def backward(part: Band | Lists | Listed, q, k, v, dy, lse, delta):
    """The gradients of q, k and v. ``lse`` is that of all parts together, ``delta`` is ``sum(dy * y)``."""
    if isinstance(part, Band):
        return backward_band(part, q, k, v, dy, lse, delta)
    return gpu_listed.backward(listed.of_part(part, k.shape[1]), q, k, v, dy, lse, delta)


def forward_band(band: Band, q, k, v):
    """``forward`` of an interval near the query."""
    layout = Layout(band, q, k, v)
    y, lse = gpu_band.forward(layout.tokens(q), layout.tokens(k), layout.tokens(v), layout.limits, layout.of_queries())
    lse = lse.reshape(*lse.shape[:2], -1).swapaxes(1, 2)
    return layout.back(y, v.shape[3]), layout.back(lse[..., None], 1)[..., 0]


def backward_band(band: Band, q, k, v, dy, lse, delta):
    """``backward`` of it."""
    layout = Layout(band, q, k, v)
    arrays = layout.tokens(q), layout.tokens(k), layout.tokens(v), layout.limits
    rest = layout.tokens(dy), layout.stats(jnp.stack([lse * LOG2E, delta], -1))
    dq = gpu_band.query_gradients(*arrays, layout.of_queries(), *rest)
    dk, dv = gpu_band.key_gradients(*arrays, layout.of_keys(), *rest)
    return layout.back(dq, q.shape[4]), layout.keys_back(dk, k.shape[3]), layout.keys_back(dv, v.shape[3])


KERNELS = with_kernels.Kernels(forward, backward, takes, far=True)


def run(q, k, v, *, mask, **rest):
    """See ``sparse_attention``."""
    one = run_blocks if isinstance(mask, Blocks) else run_bands
    return one(q, k, v, mask=mask, **rest)


def attend_listed(q, k, v, lists: Listed):
    """A list of data's is the only part."""
    return with_kernels.attend(KERNELS, q, k, v, (lists,))


run_blocks = partial(listed.run, attend_listed)
run_bands = partial(with_kernels.run, KERNELS)


class Layout:
    """Arrays as ``[B d, steps, heads, width]`` in whole tiles, where token ``u d + r`` is step u of sequence r."""

    def __init__(self, band: Band, q, k, v):
        self.B, self.T, self.Hk, self.R, _ = q.shape
        self.S, self.d = k.shape[1], band.dilation
        self.key_tiles = -(-self.S // (self.d * TILE))
        lo, hi = step_limits(band, self.S)
        late = (0, 0), (0, -lo.shape[1] % TILE)
        lo, hi = jnp.pad(lo, late, constant_values=self.S), jnp.pad(hi, late, constant_values=-1)
        self.limits = jnp.stack([x.reshape(x.shape[0], -1, TILE) for x in (lo, hi)], 2)

    def _spread(self, x):
        x = spread(x, self.d, -(-x.shape[1] // self.d))
        return jnp.pad(x, [(0, 0), (0, -x.shape[1] % TILE), *[(0, 0)] * (x.ndim - 2)])

    def tokens(self, x):
        """``[B, T, ..., width]`` in the kernels' layout, whose width is whole tiles too."""
        x = x.reshape(*x.shape[:2], -1, x.shape[-1])
        return self._spread(jnp.pad(x, [*[(0, 0)] * 3, (0, -x.shape[3] % TILE)]))

    def stats(self, x):
        """``[B, T, Hk, R, 2]`` as ``[B d, H, N, 2, 64]``."""
        x = self._spread(x.reshape(self.B, self.T, -1, 2))
        return x.reshape(x.shape[0], -1, TILE, *x.shape[2:]).transpose(0, 3, 1, 4, 2)

    def _ranges(self):
        """The first and the last tile of keys that each tile of queries meets; past all and -1 if it meets none."""
        lo, hi = self.limits[:, :, 0], self.limits[:, :, 1]
        some = lo <= hi
        first = jnp.where(some, jnp.maximum(lo, 0) // TILE, self.key_tiles).min(-1)
        return first, jnp.where(some, hi // TILE, -1).max(-1)

    def of_queries(self):
        """For each tile of queries the first tile of keys, and how many it meets."""
        first, last = self._ranges()
        return jnp.stack([first, jnp.maximum(last - first + 1, 0)], -1).astype(jnp.int32)

    def of_keys(self):
        """For each tile of keys the first tile of queries, and how many may meet it."""
        first, last = self._ranges()
        # Both made to grow with the query, if they did not: what is met too often has no weight.
        first, last = jax.lax.cummin(first, 1, reverse=True), jax.lax.cummax(last, 1)
        tiles = jnp.arange(self.key_tiles, dtype=jnp.int32)
        begin = jax.vmap(lambda x: jnp.searchsorted(x, tiles, side="left"))(last)
        end = jax.vmap(lambda x: jnp.searchsorted(x, tiles, side="right"))(first)
        return jnp.stack([begin, jnp.maximum(end - begin, 0)], -1).astype(jnp.int32)

    def _gather(self, x, tokens: int, width: int):
        return gather(x[:, : -(-tokens // self.d), :, :width], self.d, tokens)

    def back(self, x, width: int):
        """The opposite of ``tokens`` for queries."""
        return self._gather(x, self.T, width).reshape(self.B, self.T, self.Hk, self.R, width)

    def keys_back(self, x, width: int):
        """The same for keys."""
        return self._gather(x, self.S, width)
