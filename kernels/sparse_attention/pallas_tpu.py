"""Sparse attention on TPUs: the keys near a query by a kernel, the few far ones as elsewhere, and both merged."""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import tpu
from ..tpu.mosaic import LANES
from . import listed, tpu_band, tpu_listed, with_kernels
from .band import Band, gather, spread, step_limits
from .masks import BigBird, Blocks, Dilated, Strided, Window
from .with_kernels import OUTPUTS

__all__ = ["OUTPUTS", "axes", "run", "unsupported"]

REACH = 8192
"""The most tokens before itself, or steps of a dilation, that a query may see."""
BLOCK = 1024
"""The most tokens of a block, ..."""
TILES = 40
"""... and the most tiles of 256 keys and queries that one step may work through: its code is unrolled."""
SUBLANES = 8
"""Rows of a register."""
LISTED = 8192
"""The most keys that a list may name, since a query meets them all at once; ..."""
HEADS = 128
"""... and the most query heads that may do so together."""


def unsupported(q, k, v, *, mask, **_) -> str | None:
    """What does not run here, in words."""
    if reason := tpu.unsupported_heads(q, k, v):
        return reason
    if isinstance(mask, Blocks):
        return unsupported_blocks(q, k, mask)
    far = farthest(mask, k.shape[1])
    return f"a query may see at most {REACH} tokens or steps before itself, not {far}" if far > REACH else None


def unsupported_blocks(q, k, mask: Blocks) -> str | None:
    """The same of lists."""
    if mask.size < SUBLANES:
        return f"a block must have at least {SUBLANES} keys, the rows of a register, not {mask.size}"
    if (named := mask.start.shape[3] * mask.size) > LISTED:
        return f"a list may name at most {LISTED} keys, not {named}"
    R = q.shape[2] // max(k.shape[2], mask.start.shape[2])
    return f"at most {HEADS} query heads may share keys, not {R}" if R > HEADS else None


def farthest(mask: Window | Dilated | Strided | BigBird, S: int) -> int:
    """How many steps of its dilation before itself a query sees, sinks and random blocks apart."""
    if isinstance(mask, Dilated):
        return min(mask.window - 1, (S - 1) // int(np.min(mask.dilation)))
    if isinstance(mask, Strided):
        return min(max(mask.stride - 1, (S - 1) // mask.stride), S - 1)
    return min((mask.window if isinstance(mask, Window) else mask.window * mask.block) - 1, S - 1)


def axes(q, k, mask, **rest) -> dict[str, Any]:
    """The axes of the arrays."""
    return listed.axes(q, k, mask) if isinstance(mask, Blocks) else with_kernels.axes(mask=mask, **rest)


def run(q, k, v, *, mask, **rest):
    """See ``sparse_attention``."""
    one = run_blocks if isinstance(mask, Blocks) else run_bands
    return one(q, k, v, mask=mask, **rest)


run_blocks = partial(listed.run, tpu_listed.attend)


def forward(band: Band, q, k, v):
    """What the band adds: its softmax, and the logarithm of the denominator."""
    layout = Layout(band, q, k)
    y, lse = tpu_band.forward(layout.plan, layout.queries(q), layout.keys(k), layout.keys(v), layout.limits(band))
    return layout.back(y), layout.back(lse.swapaxes(2, 3))[..., 0]


def backward(band: Band, q, k, v, dy, lse, delta):
    """The gradients of q, k and v. ``lse`` is that of all parts together, ``delta`` is ``sum(dy * y)``."""
    layout = Layout(band, q, k)
    arrays = layout.queries(q), layout.keys(k), layout.keys(v), layout.limits(band)
    cotangents = layout.queries(dy), layout.rows(lse), layout.rows(delta)
    dq, dk, dv = tpu_band.backward(layout.plan, *arrays, *cotangents)
    return layout.back(dq), layout.keys_back(dk), layout.keys_back(dv)


run_bands = partial(with_kernels.run, with_kernels.Kernels(forward, backward, plain=True))


class Layout:
    """Arrays as ``[B d, heads, steps, width]`` in whole blocks, where token ``u d + r`` is step u of sequence r."""

    def __init__(self, band: Band, q, k):
        self.B, self.T, self.Hk, self.R, _ = q.shape
        self.S, self.d = k.shape[1], band.dilation
        steps, key_steps = -(-self.T // self.d), -(-self.S // self.d)
        reach = min(band.reach, key_steps - 1)
        tile = 2 * LANES if reach >= 2 * LANES and steps >= 2 * LANES else LANES
        C = min(BLOCK, -(-steps // tile) * tile)
        while C > tile and C // LANES * (-(-reach // LANES) + tile // LANES) > 4 * TILES:  # noqa: SIM300
            C = -(-C // 2 // tile) * tile
        before = key_steps - steps
        self.left = before % C  # so that blocks of queries are blocks of keys
        blocks = -(-(self.left + steps) // C)
        plain = band.lo is None
        self.plan = tpu_band.Plan(C, tile, blocks, before // C, reach, self.R, plain)
        self.steps, self.key_steps = steps, key_steps

    def _spread(self, x, steps: int, left: int, blocks: int, fill: int = 0):
        """``[B, n, ...]`` as ``[B d, blocks C, ...]``; filled up to whole steps on the left."""
        ends = left, blocks * self.plan.C - left - steps
        x = spread(x, self.d, steps, fill)
        return jnp.pad(x, ((0, 0), ends, *[(0, 0)] * (x.ndim - 2)), constant_values=fill)

    def queries(self, x):
        """``[B, T, Hk, R, K]`` in the kernels' layout."""
        x = self._spread(x, self.steps, self.left, self.plan.blocks)
        return x.reshape(*x.shape[:2], -1, x.shape[-1]).swapaxes(1, 2)

    def keys(self, x):
        """The same of ``[B, S, Hk, K]``."""
        return self._spread(x, self.key_steps, 0, self.plan.blocks + self.plan.offset).swapaxes(1, 2)

    def rows(self, x):
        """``[B, T, Hk, R]`` with time in lanes."""
        return self.queries(x[..., None]).swapaxes(2, 3)

    def limits(self, band: Band) -> list:
        """The first and the last step that each query sees."""
        if self.plan.plain:
            return []
        ends = self.left, self.plan.blocks * self.plan.C - self.left - self.steps
        lo, hi = step_limits(band, self.S)
        pad = lambda x, fill: jnp.pad(x, ((0, 0), ends), constant_values=fill)[:, None]  # noqa: E731
        return [pad(lo, self.S), pad(hi, -1)]

    def _gather(self, x, steps: int, left: int, tokens: int):
        """The opposite of ``_spread``, of ``[B d, heads, steps, width]``."""
        return gather(x[:, :, left : left + steps].swapaxes(1, 2), self.d, tokens)

    def back(self, x):
        """The opposite of ``queries``."""
        x = self._gather(x, self.steps, self.left, self.T)
        return x.reshape(*x.shape[:2], self.Hk, self.R, x.shape[-1])

    def keys_back(self, x):
        """The opposite of ``keys``, summed over the query heads of each."""
        x = self._gather(x, self.key_steps, 0, self.S)
        return x.reshape(*x.shape[:2], self.Hk, self.R, x.shape[-1]).sum(3)
