"""Decays inside a chunk: how much is left at token i of what was written at token j.

The log-decay is the sum of g over the tokens after j, up to i. It is always taken over exactly those tokens, by a
product with a 0/1 matrix: differences of a running sum lose their digits once a strong gate has passed. No exponent
is positive, so nothing overflows.
"""

from functools import cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.lax import Precision
from jaxtyping import Array, Bool, Float

from .chunks import Links

BASE = 8
"""Per-channel decays are built in blocks of this many tokens by masks, above it from halves."""


class ScalarDecay(NamedTuple):
    """The decays of one gate per token and head."""

    within: Float[Array, "B H C C"]
    """From token j (the last axis) to token i; zero where i < j or another segment begins between them."""
    enter: Float[Array, "B H C 1"]
    """From the state that enters the chunk to token i."""
    leave: Float[Array, "B H C 1"]
    """From token j to the state that leaves the chunk."""
    through: Float[Array, "B H 1 1"]
    """From the state that enters to the state that leaves."""

    def scores(self, x: Float[Array, "B H R C K"], y: Float[Array, "B H C K"]) -> Float[Array, "B H R C C"]:
        """``sum_k x_ik y_jk decay(j to i)`` for j <= i, for each of the R left factors."""
        return jnp.einsum("bhrik,bhjk->bhrij", x, y) * self.within[:, :, None]


class VectorDecay(NamedTuple):
    """The decays of one gate per token and key channel: ``scores`` as above, by a dyadic split of the chunk.

    Tokens i in the right half of a block and j in its left half meet in the middle: the decay from j to i is the
    product of those from j to the middle and from the middle to i, which scale the two factors of one matrix product.
    """

    low: Float[Array, "B H L C K"]
    """For each block size up to ``BASE``: to token i from its block's middle, or from token j to it."""
    high: tuple[Float[Array, "B H C K"], ...]
    """The same for each larger block size."""
    pair: Bool[Array, "B C C"] | None
    enter: Float[Array, "B H C K"]
    leave: Float[Array, "B H C K"]
    through: Float[Array, "B H K 1"]

    def scores(self, x: Float[Array, "B H R C K"], y: Float[Array, "B H C K"]) -> Float[Array, "B H R C C"]:
        """``sum_k x_ik y_jk decay_k(j to i)`` for j <= i, for each of the R left factors."""
        C, masks = y.shape[2], _masks(min(y.shape[2], BASE))
        b = masks.shape[1]
        blocks = lambda a: a.reshape(*a.shape[:-2], -1, b, a.shape[-1])  # noqa: E731
        low = self.low
        products = jnp.einsum(
            "bhrlnik,bhlnjk->bhrlnij", blocks(x[:, :, :, None] * low[:, :, None]), blocks(y[:, :, None] * low)
        )
        scores = jnp.where(masks[:, None], products, 0).sum(3)
        for level in self.high:
            halves = lambda a, b=b: a.reshape(*a.shape[:-2], -1, 2, b, a.shape[-1])  # noqa: E731
            decay = halves(level)
            right = halves(x)[..., 1, :, :] * decay[:, :, None, :, 1]
            left = halves(y)[..., 0, :, :] * decay[..., 0, :, :]
            across = jnp.einsum("bhrnik,bhnjk->bhrnij", right, left)
            diagonal = scores.reshape(*across.shape[:-2], 2, b, b)
            upper = jnp.concatenate([diagonal[..., 0, :, :], jnp.zeros_like(across)], -1)
            lower = jnp.concatenate([across, diagonal[..., 1, :, :]], -1)
            scores = jnp.concatenate([upper, lower], -2)
            b *= 2
        scores = scores.reshape(*scores.shape[:3], C, C)
        return scores if self.pair is None else jnp.where(self.pair[:, None, None], scores, 0)


def decays(
    g: Float[Array, "B H C"] | Float[Array, "B H C K"] | None, C: int, links: Links | None
) -> ScalarDecay | VectorDecay:
    """The decays of one chunk of C tokens, whose log-gates are g; None stands for zeros."""
    if g is None:
        g = jnp.zeros((1, 1, C))
    return scalar_decays(g, links) if g.ndim == 3 else vector_decays(g, links)


def scalar_decays(g: Float[Array, "B H C"], links: Links | None) -> ScalarDecay:
    """Sums over all intervals: the gates after j, times the matrix that sums up to i; j = -1 is before the chunk."""
    C = g.shape[2]
    j, i = np.arange(-1, C)[:, None], np.arange(C)
    after = jnp.where(j < i, g[:, :, None], 0)
    sums = jnp.matmul(after, np.triu(np.ones((C, C), g.dtype)), precision=Precision.HIGHEST)
    decay = jnp.where(j <= i, jnp.exp(sums), 0)
    within, enter = decay[:, :, 1:].swapaxes(2, 3), decay[:, :, 0, :, None]
    leave, through = decay[:, :, 1:, -1:], decay[:, :, :1, -1:]
    if links is not None:
        within = jnp.where(links.pair[:, None], within, 0)
        enter, leave, through = _cut(links, enter, leave, through)
    return ScalarDecay(within, enter, leave, through)


def vector_decays(g: Float[Array, "B H C K"], links: Links | None) -> VectorDecay:
    """Sums over the intervals of every level of the dyadic split.

    One product for each array that is used alone: a slice's gradient is an array of the whole, mostly zeros.
    """
    intervals = _intervals(g.shape[2]).astype(g.dtype)
    L = _masks(min(g.shape[2], BASE)).shape[0]
    low, *high, enter, leave = (
        jnp.exp(jnp.einsum("...ij,bhjk->bh...ik", ends, g, precision=Precision.HIGHEST))
        for ends in (intervals[:L], *intervals[L:])
    )
    through = jnp.exp(g.sum(2))[..., None]
    if links is not None:
        enter, leave, through = _cut(links, enter, leave, through)
    return VectorDecay(low, tuple(high), None if links is None else links.pair, enter, leave, through)


def _cut(links: Links, enter, leave, through):
    """No decay reaches over a border of segments."""
    return (
        jnp.where(links.enter[:, None, :, None], enter, 0),
        jnp.where(links.leave[:, None, :, None], leave, 0),
        jnp.where(links.through[:, None, None, None], through, 0),
    )


@cache
def _intervals(C: int) -> np.ndarray:
    """Whose gates add up at token i: for the empty level, each block size, the entering and the leaving state."""
    i = np.arange(C)
    ends = [(i, i)]
    for level in range(C.bit_length() - 1):
        middle = (i >> (level + 1) << (level + 1)) + (1 << level)
        right = i >= middle
        ends.append((np.where(right, middle, i + 1), np.where(right, i + 1, middle)))
    ends += [(0 * i, i + 1), (i + 1, 0 * i + C)]
    return np.stack([(start[:, None] <= i) & (i < stop[:, None]) for start, stop in ends])


@cache
def _masks(C: int) -> np.ndarray:
    """Which (i, j) meet at each level: the diagonal at the empty one, then right half and left half of a block."""
    i, j = np.arange(C)[:, None], np.arange(C)
    masks = [i == j]
    for level in range(C.bit_length() - 1):
        masks.append((i >> (level + 1) == j >> (level + 1)) & (i >> level > j >> level))
    return np.stack(masks)
