"""Softmax over one tile of keys after the other: ``FlashAttention``'s running maximum, and its gradients.

A query with no key has ``y = 0`` and a logarithm so low that it weighs nothing beside another's.
"""

from functools import reduce
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

EMPTY = -1e30
"""The largest score of none; finite, so that differences of it are."""

SCORES = "...crk,...lk->...crl"
"""Of c queries of r heads, which share the l keys."""


class Softmax(NamedTuple):
    """What has been summed over the keys so far."""

    value: Float[Array, "*n C R V"]
    total: Float[Array, "*n C R"]
    most: Float[Array, "*n C R"]

    def result(self) -> tuple[Float[Array, "*n C R V"], Float[Array, "*n C R"]]:
        """The weighted mean of the values, and the logarithm of the sum of ``exp(score)``."""
        total = jnp.where(self.total > 0, self.total, 1)
        return self.value / total[..., None], self.most + jnp.log(total)


def scores(q: Float[Array, "*n C R K"], k: Float[Array, "*n L K"], seen: Bool[Array, "..."]) -> Float[Array, "..."]:
    """``q . k`` where a key is seen; elsewhere what ``exp`` makes 0."""
    return jnp.where(seen, jnp.einsum(SCORES, q, k), -jnp.inf)


def first(q, keys, seen) -> Softmax:
    """The sums over the first tile, ``keys`` being k ``[*n, L, K]`` and v."""
    k, v = keys
    s = scores(q, k, seen)
    most = jnp.maximum(jnp.max(s, axis=-1), EMPTY)
    p = jnp.exp(s - most[..., None])
    return Softmax(jnp.einsum("...crl,...lv->...crv", p, v), jnp.sum(p, axis=-1), most)


def more(state: Softmax, q, keys, seen) -> Softmax:
    """The sums with one tile more."""
    k, v = keys
    s = scores(q, k, seen)
    most = jnp.maximum(jnp.max(s, axis=-1), state.most)
    p, shrink = jnp.exp(s - most[..., None]), jnp.exp(state.most - most)
    value = shrink[..., None] * state.value + jnp.einsum("...crl,...lv->...crv", p, v)
    return Softmax(value, shrink * state.total + jnp.sum(p, axis=-1), most)


def nothing(q: Float[Array, "*n C R K"], V: int) -> Softmax:
    """The sums over no tile."""
    zero = jnp.zeros(q.shape[:-1], q.dtype)
    return Softmax(jnp.zeros((*zero.shape, V), q.dtype), zero, zero + EMPTY)


def merge(parts: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """The softmax over the keys of all parts, which share none, of the mean and logarithm of each."""
    most = jnp.stack([lse for _, lse in parts]).max(axis=0)
    weights = jnp.stack([jnp.exp(lse - most) for _, lse in parts])
    total = weights.sum(axis=0)
    y = [w[..., None] * y for w, (y, _) in zip(weights / total, parts, strict=True)]
    return reduce(jnp.add, y), most + jnp.log(total)


def gradients(queries, keys, seen):
    """The gradients of q, and of k and v, of one tile.

    ``queries`` are q, dy, the logarithm of the denominator, and ``delta``, which is ``sum(dy * y)``.
    """
    (q, dy, lse, delta), (k, v) = queries, keys
    p = jnp.exp(scores(q, k, seen) - lse[..., None])
    dp = jnp.einsum(SCORES, dy, v)
    ds = p * (dp - delta[..., None])
    dk, dv = (jnp.einsum("...crl,...crk->...lk", a, b) for a, b in ((ds, q), (p, dy)))
    return jnp.einsum("...crl,...lk->...crk", ds, k), (dk, dv)
