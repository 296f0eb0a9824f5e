"""Sparse attention on TPUs: the keys near a query by a kernel, the few far ones as elsewhere, and both merged."""

from dataclasses import replace
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from .. import tpu
from ..chunks import matmul_precision
from ..mosaic import LANES
from . import tpu_band, tpu_listed
from .band import Band
from .masks import BigBird, Blocks, Dilated, Strided, Window
from .softmax import merge
from .xla import by_head, cut

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

OUTPUTS = "B T H V"


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


def axes(q, k, mask, **_) -> dict[str, Any]:
    """The axes of the arrays; where a mask that is no list differs by head, heads are not spread."""
    if isinstance(mask, Blocks):
        of = {q.shape[2]: "H", k.shape[2]: "Hk"}.get(mask.start.shape[2], "all")
        return {
            "q": "B T H K", "k": "B S Hk K", "v": "B S Hk V", "segment_ids": "B S",
            "mask": replace(mask, start=f"B N {of} n"),
        }  # fmt: skip
    own = isinstance(mask, Dilated) and isinstance(mask.dilation, tuple)
    differs = own or (isinstance(mask, BigBird) and mask.random)
    heads, keys = ("heads", "key_heads") if differs else ("H", "Hk")
    return {"q": f"B T {heads} K", "k": f"B S {keys} K", "v": f"B S {keys} V", "segment_ids": "B S"}


@jax.jit
def run(q, k, v, *, mask, scale, segment_ids):
    """See ``sparse_attention``."""
    if isinstance(mask, Dilated) and isinstance(mask.dilation, tuple):
        return by_head(run, q, k, v, mask, scale, segment_ids)
    low, Hk = jnp.result_type(q, k, v), k.shape[2]
    if isinstance(mask, Blocks):
        q, k, v_ = (x.astype(low) for x in (q * scale, k, v))
        return attend_blocks(q, k, v_, mask, segment_ids).astype(v.dtype)
    q, k, values, parts, back = cut(q, k, v, mask, segment_ids)
    if segment_ids is None and not mask.sinks and isinstance(mask, Window | Strided):  # by position alone
        parts = (replace(parts[0], lo=None, hi=None), *parts[1:])
    q = rearrange((q * scale).astype(low), "B T (G R) K -> B T G R K", G=Hk)
    y = _attend(q, k.astype(low), values.astype(low), parts)
    return back(rearrange(y, "B T G R V -> B T (G R) V").astype(v.dtype))


def attend_blocks(q, k, v, mask: Blocks, segment_ids):
    """Where each query head has lists of its own, it has keys of its own."""
    lists, packing = tpu_listed.listed(mask, q.shape[1], k.shape[:2], segment_ids)
    if packing is not None:
        k, v = map(packing.pack, (k, v))
    q = rearrange(q, "B T (G R) K -> B T G R K", G=max(k.shape[2], mask.start.shape[2]))
    return rearrange(tpu_listed.attend(q, k, v, lists), "B T G R V -> B T (G R) V")


@jax.custom_vjp
def _attend(q, k, v, parts):
    return _forward(q, k, v, parts)[0]


def _forward(q, k, v, parts):
    done = []
    for part in parts:
        if isinstance(part, Band):
            layout = Layout(part, q, k)
            arrays = layout.queries(q), layout.keys(k), layout.keys(v), layout.limits(part)
            y, lse = tpu_band.forward(layout.plan, *arrays)
            done.append((layout.back(y), layout.back(lse.swapaxes(2, 3))[..., 0]))
        else:
            with matmul_precision(q.dtype):
                done.append(part.forward(*map(widened, (q, k, v))))
    y, lse = done[0] if len(done) == 1 else merge([(widened(y), lse) for y, lse in done])
    return y, (q, k, v, parts, y, lse)


def _backward(residuals, dy):
    q, k, v, parts, y, lse = residuals
    delta = jnp.sum(widened(dy) * widened(y), -1)
    grads = []
    for part in parts:
        if isinstance(part, Band):
            layout = Layout(part, q, k)
            arrays = layout.queries(q), layout.keys(k), layout.keys(v), layout.limits(part)
            cotangents = layout.queries(dy.astype(q.dtype)), layout.rows(lse), layout.rows(delta)
            dq, dk, dv = tpu_band.backward(layout.plan, *arrays, *cotangents)
            grads.append((layout.back(dq), layout.keys_back(dk), layout.keys_back(dv)))
        else:
            with matmul_precision(q.dtype):
                grads.append(part.backward(*map(widened, (q, k, v, dy)), lse, delta))
    if len(grads) > 1:
        grads = [[reduce(jnp.add, map(widened, xs)) for xs in zip(*grads, strict=True)]]
    return *(x.astype(of.dtype) for x, of in zip(grads[0], (q, k, v), strict=True)), None


def widened(x):
    """In float32."""
    return x.astype(jnp.float32)


_attend.defvjp(_forward, _backward)


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
        short = steps * self.d - x.shape[1]
        pad = lambda x, *ends: jnp.pad(x, ((0, 0), ends, *[(0, 0)] * (x.ndim - 2)), constant_values=fill)  # noqa: E731
        x = pad(x, short, 0)
        x = x.reshape(x.shape[0], steps, self.d, *x.shape[2:])
        x = x.swapaxes(1, 2).reshape(-1, steps, *x.shape[3:])
        return pad(x, left, blocks * self.plan.C - left - steps)

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
        short, remainder = self.key_steps * self.d - self.S, jnp.arange(self.B * self.d)[:, None] % self.d
        lo, hi = (
            self._spread(x, self.steps, self.left, self.plan.blocks, fill)
            for x, fill in ((band.lo, self.S), (band.hi, -1))
        )
        lo, hi = -((remainder - short - lo) // self.d), (hi + short - remainder) // self.d
        return [lo[:, None], hi[:, None]]

    def _gather(self, x, steps: int, left: int, tokens: int):
        """The opposite of ``_spread``, of ``[B d, heads, steps, width]``."""
        x = x[:, :, left : left + steps].swapaxes(1, 2)
        x = x.reshape(self.B, self.d, steps, *x.shape[2:]).swapaxes(1, 2)
        return x.reshape(self.B, steps * self.d, *x.shape[3:])[:, -tokens:]

    def back(self, x):
        """The opposite of ``queries``."""
        x = self._gather(x, self.steps, self.left, self.T)
        return x.reshape(*x.shape[:2], self.Hk, self.R, x.shape[-1])

    def keys_back(self, x):
        """The opposite of ``keys``, summed over the query heads of each."""
        x = self._gather(x, self.key_steps, 0, self.S)
        return x.reshape(*x.shape[:2], self.Hk, self.R, x.shape[-1]).sum(3)
