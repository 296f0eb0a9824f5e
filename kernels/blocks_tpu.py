"""How arrays reach the TPU kernels of recurrences on chunks: time in blocks of C, heads side by side in groups."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl


class Plan(NamedTuple):
    """Everything static about a call: sizes, heads in a grid step, chunk length, and the variant."""

    B: int
    N: int
    C: int
    H: int
    Hk: int
    K: int
    V: int
    hb: int
    scale: float

    @property
    def kb(self) -> int:
        """Key heads in a grid step."""
        return self.hb * self.Hk // self.H

    @property
    def grid(self) -> tuple[int, int, int]:
        """Batch, groups of heads, chunks."""
        return self.B, self.H // self.hb, self.N


def columns_of(plan: Plan, *xs) -> jax.Array:
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
        self.tokens = lambda width: pl.BlockSpec((None, C, width), lambda b, h, c: (b, n(c), h))
        self.state = pl.BlockSpec((None, hb, plan.K, plan.V), lambda b, h, c: (b, h, 0, 0))
        self.states = pl.BlockSpec((None, None, hb, plan.K, plan.V), lambda b, h, c: (b, n(c), h, 0, 0))
        self.columns = lambda width: pl.BlockSpec((None, None, C, width), lambda b, h, c: (b, h, n(c), 0))
        self.ids = [
            pl.BlockSpec((None, 1, C), lambda b, h, c: (b, 0, n(c))),
            pl.BlockSpec((None, C, 2), lambda b, h, c: (b, n(c), 0)),
        ]


def heads(ref, count: int, of: int) -> list:
    """The heads side by side in ``[C, of * width]``, as ``count`` heads."""
    width = ref.shape[-1] // of
    return [ref[:, j * width : (j + 1) * width] for j in (h * of // count for h in range(count))]


def flat(x):
    """The heads of ``[B, T, H, K]`` side by side, as a model's projections make them."""
    return x.reshape(*x.shape[:2], -1)
