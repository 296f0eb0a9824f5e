"""How arrays reach the TPU kernels of recurrences on chunks: time in blocks of C, heads in groups.

Keys, which are all that has K channels, are ``[B, n, T, K]`` for n heads, into which XLA writes a norm over K without a
copy; values are ``[B, T, n V]``, as projections have them. n may be fewer than H.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl


class Plan(NamedTuple):
    """Everything static about a call: sizes, and how they are cut."""

    B: int
    N: int
    """Chunks ..."""
    C: int
    """... of so many tokens."""
    H: int
    K: int
    V: int
    hb: int
    """Value heads in a grid step."""
    scale: float

    @property
    def grid(self) -> tuple[int, int, int]:
        """Batch, groups of heads, chunks."""
        return self.B, self.H // self.hb, self.N

    def share(self, n: int) -> int:
        """Of n heads, or the lanes of n heads, those in a grid step."""
        return self.hb * n // self.H


def columns_of(plan: Plan, xs: list) -> jax.Array:
    """Small arrays ``[B, T, H]`` as ``[B, H / hb, T, n hb]``: n columns for each head of a grid step."""
    x = jnp.stack([x.reshape(*x.shape[:2], -1, plan.hb) for x in xs], 3)
    return jnp.moveaxis(x.reshape(*x.shape[:3], -1), 2, 1)


def segments_of(plan: Plan, number) -> list[jax.Array]:
    """The numbers of the segments as a row, and as columns with the number of the token before the chunk."""
    if number is None:
        return []
    before = jnp.pad(number, ((0, 0), (1, 0)))[:, : number.shape[1] : plan.C]
    return [number[:, None, :], jnp.stack([number, jnp.repeat(before, plan.C, 1)], -1)]


class Blocks:
    """The blocks of a grid step; ``reverse`` takes the chunks last first."""

    def __init__(self, plan: Plan, reverse: bool):
        n = lambda c: plan.N - 1 - c if reverse else c  # noqa: E731
        C, hb = plan.C, plan.hb
        self.values = lambda width: pl.BlockSpec((None, C, width), lambda b, h, c: (b, n(c), h))
        self.keys = lambda heads, width: pl.BlockSpec((None, heads, C, width), lambda b, h, c: (b, h, n(c), 0))
        self.tokens = lambda x: (
            self.values(plan.share(x.shape[2])) if x.ndim == 3 else self.keys(plan.share(x.shape[1]), x.shape[3])
        )
        self.state = pl.BlockSpec((None, hb, plan.K, plan.V), lambda b, h, c: (b, h, 0, 0))
        self.states = pl.BlockSpec((None, None, hb, plan.K, plan.V), lambda b, h, c: (b, n(c), h, 0, 0))
        self.columns = lambda width: pl.BlockSpec((None, None, C, width), lambda b, h, c: (b, h, n(c), 0))
        self.ids = [
            pl.BlockSpec((None, 1, C), lambda b, h, c: (b, 0, n(c))),
            pl.BlockSpec((None, C, 2), lambda b, h, c: (b, n(c), 0)),
        ]


def _places(ref, width: int) -> list:
    """Where the heads are in a block of keys or of values."""
    if len(ref.shape) == 3:
        return list(range(ref.shape[0]))
    return [(slice(None), slice(start, start + width)) for start in range(0, ref.shape[1], width)]


def heads(ref, count: int, width: int) -> list:
    """A block of keys or values as ``count`` heads, of which several may read the same."""
    places = _places(ref, width)
    return [ref[places[h * len(places) // count]] for h in range(count)]


def write_heads(ref, xs: list) -> None:
    """Writes heads of keys or values, each the sum of those that read the same."""
    places = _places(ref, xs[0].shape[-1])
    each = len(xs) // len(places)
    for j, place in enumerate(places):
        group = xs[j * each : (j + 1) * each]
        ref[place] = sum(group[1:], group[0]).astype(ref.dtype)


def flat(x):
    """The heads of ``[B, T, H, V]`` side by side."""
    return x.reshape(*x.shape[:2], -1)
