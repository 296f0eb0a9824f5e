"""Decays inside a chunk: how much is left at token i of what was written at token j.

That is the product of exp(g) over the tokens after j, up to i. It is always taken over exactly those tokens: quotients
of running products, or differences of running sums, lose their digits once a strong gate has passed. No exponent is
positive, so nothing overflows.

Arrays are ``[B, H, ..., C, K]`` and links ``[B, ..., C]``: a step may take several chunks at once.
"""

from functools import cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import linear_transpose
from jax.lax import Precision
from jaxtyping import Array, Bool, Float

from .chunks import Links

BASE = 16
"""Per-channel decays are built in blocks of this many tokens by masks, above it from halves."""


class ScalarDecay(NamedTuple):
    """The decays of one gate per token and head."""

    within: Float[Array, "*n C C"]
    """From token j (the last axis) to token i; zero where i < j or another segment begins between them."""
    enter: Float[Array, "*n C 1"]
    """From the state that enters the chunk to token i."""
    leave: Float[Array, "*n C 1"]
    """From token j to the state that leaves the chunk."""
    through: Float[Array, "*n 1 1"]
    """From the state that enters to the state that leaves."""

    def scores(self, x: Float[Array, "*n R C K"], y: Float[Array, "*n L C K"]) -> Float[Array, "*n R L C C"]:
        """``sum_k x_ik y_jk decay(j to i)`` for j <= i, for each pair of the R left and the L right factors."""
        return (x[..., :, None, :, :] @ y[..., None, :, :, :].swapaxes(-1, -2)) * self.within[..., None, None, :, :]


class VectorDecay(NamedTuple):
    """The decays of one gate per token and key channel: ``scores`` as above, by a dyadic split of the chunk.

    Tokens i in the right half of a block and j in its left half meet in the middle: the decay from j to i is the
    product of those from j to the middle and from the middle to i, which scale the two factors of one matrix product.
    """

    levels: tuple[Float[Array, "*n C K"], ...]
    """For each block size: to token i from its block's middle, or from token j to it."""
    pair: Bool[Array, "*m C C"] | None
    enter: Float[Array, "*n C K"]
    leave: Float[Array, "*n C K"]
    through: Float[Array, "*n K 1"]

    def scores(self, x: Float[Array, "*n R C K"], y: Float[Array, "*n L C K"]) -> Float[Array, "*n R L C C"]:
        """``sum_k x_ik y_jk decay_k(j to i)`` for j <= i, for each pair of the R left and the L right factors."""
        R, L, C = x.shape[-3], y.shape[-3], y.shape[-2]
        b = min(C, BASE)
        left, right = _blocks(x, b), _blocks(y, b)
        scores = jnp.where(np.eye(b, dtype=bool)[:, None], _products(left, right), 0)
        for mask, decay in zip(_masks(b), self.levels, strict=False):
            decay = _blocks(decay[..., None, :, :], b)
            scores = jnp.where(mask[:, None], _products(left * decay, right * decay), scores)
        for decay in self.levels[b.bit_length() - 1 :]:
            halves = lambda a, i, b=b: _blocks(a, b)[..., i::2, :, :, :]  # noqa: E731
            decay = decay[..., None, :, :]
            across = _products(halves(x * decay, 1), halves(y * decay, 0))
            upper, lower = scores[..., 0::2, :, :, :, :], scores[..., 1::2, :, :, :, :]
            upper = jnp.concatenate([upper, jnp.zeros_like(across)], -1)
            scores = jnp.concatenate([upper, jnp.concatenate([across, lower], -1)], -3)
            b *= 2
        scores = jnp.moveaxis(scores.reshape(*scores.shape[:-5], R, C, L, C), -2, -3)
        return scores if self.pair is None else jnp.where(self.pair[:, None, ..., None, None, :, :], scores, 0)

    def weighted(self, weights: Float[Array, "*n C C"], y: Float[Array, "*n C K"]) -> Float[Array, "*n C K"]:
        """``sum_j weights_ij y_jk decay_k(j to i)`` over j <= i: as a map of x, ``scores`` is this one's transpose."""
        x = linear_transpose(lambda x: self.scores(x[..., None, :, :], y[..., None, :, :]), y)(
            weights[..., None, None, :, :]
        )
        return x[0]


Decay = ScalarDecay | VectorDecay


class Undecayed(NamedTuple):
    """What ``decay`` becomes for a read that comes before its token's own gate and write: up to the token before."""

    decay: Decay
    links: Links | None

    @property
    def enter(self) -> Float[Array, "*n C A"]:
        """From the state that enters the chunk to the token before i."""
        enter = self.decay.enter
        enter = jnp.concatenate([jnp.ones_like(enter[..., :1, :]), enter[..., :-1, :]], -2)
        return enter if self.links is None else jnp.where(self.links.enter[:, None, ..., None], enter, 0)

    @staticmethod
    def moved(x: Float[Array, "*n C K"]) -> Float[Array, "*n C K"]:
        """Left factors, each at the token before its own: whose decays are those that it takes."""
        return jnp.concatenate([x[..., 1:, :], jnp.zeros_like(x[..., :1, :])], -2)

    def back(self, scores: Float[Array, "*n C C"]) -> Float[Array, "*n C C"]:
        """The scores of ``moved`` left factors at their own tokens: for j < i."""
        scores = jnp.concatenate([jnp.zeros_like(scores[..., :1, :]), scores[..., :-1, :]], -2)
        return scores if self.links is None else jnp.where(self.links.pair[:, None], scores, 0)


def decays(g: Float[Array, "..."] | None, k: Float[Array, "*n C K"], links: Links | None) -> Decay:
    """The decays of chunks whose log-gates are g, for keys k; None stands for zeros."""
    if g is None:
        g = jnp.zeros((1,) * (k.ndim - 2) + (k.shape[-2],))
    return scalar_decays(g, links) if g.ndim < k.ndim else vector_decays(g, links)


def scalar_decays(g: Float[Array, "*n C"], links: Links | None) -> ScalarDecay:
    """The exponentials of ``interval_sums``."""
    j, i = np.arange(-1, g.shape[-1])[:, None], np.arange(g.shape[-1])
    decay = jnp.where(j <= i, jnp.exp(interval_sums(g)), 0)
    within, enter = decay[..., 1:, :].swapaxes(-1, -2), decay[..., 0, :, None]
    leave, through = decay[..., 1:, -1:], decay[..., :1, -1:]
    if links is not None:
        within = jnp.where(links.pair[:, None], within, 0)
        enter, leave, through = _cut(links, enter, leave, through)
    return ScalarDecay(within, enter, leave, through)


def interval_sums(g: Float[Array, "*n C"]) -> Float[Array, "*n C+1 C"]:
    """The sums of the gates after token j, up to token i (the last axis); j = -1, the first row, is before the chunk.

    They are the gates after j, times the matrix that sums up to i. Where i < j the sum means nothing.
    """
    j, i = np.arange(-1, g.shape[-1])[:, None], np.arange(g.shape[-1])
    after = jnp.where(j < i, g[..., None, :], 0)
    return jnp.matmul(after, np.triu(np.ones((g.shape[-1],) * 2, g.dtype)), precision=Precision.HIGHEST)


def vector_decays(g: Float[Array, "*n C K"], links: Links | None) -> VectorDecay:
    """Products over the intervals of every level of the dyadic split, each from those of the level below.

    ``upto[i]`` is the product from the start of i's block up to i; ``after[j]`` that after j to the end of j's block.
    """
    upto = jnp.exp(g)
    after, levels, C = jnp.ones_like(upto), [], g.shape[-2]
    for level in range(C.bit_length() - 1):
        pairs = lambda a, b=1 << level: a.reshape(*a.shape[:-2], -1, 2, b, a.shape[-1])  # noqa: E731
        whole = lambda left, right: jnp.stack([left, right], -3).reshape(g.shape)  # noqa: E731
        (left, right), (from_left, from_right) = (
            (a[..., 0, :, :], a[..., 1, :, :]) for a in (pairs(upto), pairs(after))
        )
        levels.append(whole(from_left, right))
        upto = whole(left, right * left[..., -1:, :])
        after = whole(from_left * right[..., -1:, :], from_right)
    enter, leave, through = upto, after, upto[..., -1, :, None]
    if links is not None:
        enter, leave, through = _cut(links, enter, leave, through)
    return VectorDecay(tuple(levels), None if links is None else links.pair, enter, leave, through)


def _cut(links: Links, enter, leave, through):
    """No decay reaches over a border of segments."""
    return (
        jnp.where(links.enter[:, None, ..., None], enter, 0),
        jnp.where(links.leave[:, None, ..., None], leave, 0),
        jnp.where(links.through[:, None, ..., None, None], through, 0),
    )


def _blocks(a: Float[Array, "*n F C K"], b: int) -> Float[Array, "*n M F b K"]:
    """The rows of F factors by blocks, of which there are M: one product then serves all pairs of factors."""
    return jnp.swapaxes(a.reshape(*a.shape[:-2], -1, b, a.shape[-1]), -4, -3)


def _products(x: Float[Array, "*n R b K"], y: Float[Array, "*n L b K"]) -> Float[Array, "*n R b L b"]:
    """The products of all rows of x with all rows of y."""
    rows = lambda a: a.reshape(*a.shape[:-3], -1, a.shape[-1])  # noqa: E731
    return (rows(x) @ rows(y).swapaxes(-1, -2)).reshape(*x.shape[:-1], *y.shape[-3:-1])


@cache
def _masks(C: int) -> np.ndarray:
    """Which (i, j) meet at each level: right half and left half of a block."""
    i, j = np.arange(C)[:, None], np.arange(C)
    levels = range(C.bit_length() - 1)
    return np.array([(i >> (n + 1) == j >> (n + 1)) & (i >> n > j >> n) for n in levels]).reshape(-1, C, C)
