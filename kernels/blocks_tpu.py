"""How arrays reach the TPU kernels of recurrences on chunks: time in blocks of C, heads side by side in groups."""

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

    def width(self, x) -> int:
        """Lanes of ``[B, T, n, K]`` in a grid step, where n may be fewer than H."""
        return self.hb * x.shape[2] // self.H * x.shape[3]


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
        self.tokens = lambda width: pl.BlockSpec((None, C, width), lambda b, h, c: (b, n(c), h))
        self.state = pl.BlockSpec((None, hb, plan.K, plan.V), lambda b, h, c: (b, h, 0, 0))
        self.states = pl.BlockSpec((None, None, hb, plan.K, plan.V), lambda b, h, c: (b, n(c), h, 0, 0))
        self.columns = lambda width: pl.BlockSpec((None, None, C, width), lambda b, h, c: (b, h, n(c), 0))
        self.ids = [
            pl.BlockSpec((None, 1, C), lambda b, h, c: (b, 0, n(c))),
            pl.BlockSpec((None, C, 2), lambda b, h, c: (b, n(c), 0)),
        ]


def heads(ref, count: int, width: int) -> list:
    """What is side by side in ``[C, n * width]``, as ``count`` heads, of which several may read the same."""
    n = ref.shape[-1] // width
    return [ref[:, j * width : (j + 1) * width] for j in (h * n // count for h in range(count))]


def write_heads(ref, xs: list) -> None:
    """Writes heads side by side, each the sum of those that read the same."""
    width = xs[0].shape[-1]
    n = ref.shape[-1] // width
    for j in range(n):
        group = xs[j * len(xs) // n : (j + 1) * len(xs) // n]
        ref[:, j * width : (j + 1) * width] = sum(group[1:], group[0]).astype(ref.dtype)


def flat(x):
    """The heads of ``[B, T, H, K]`` side by side, as a model's projections make them."""
    return x.reshape(*x.shape[:2], -1)
