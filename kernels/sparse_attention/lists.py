"""Attention to lists of blocks of keys: gathered for some blocks of queries at a time."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from .softmax import first, gradients

ENTRIES = 2**20
"""The most numbers that are gathered at once."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Lists:
    """Query t sees those of the ``size`` keys from each ``start`` of its block that are in ``lo[t] .. hi[t]``."""

    start: Int[Array, "B N #Hk n"] | Any
    lo: Int[Array, "B T"] | Any
    hi: Int[Array, "B T"] | Any
    document: tuple[Int[Array, "B T"], Int[Array, "B S"]] | Any | None
    """Of queries and keys, which must agree; None: they do."""
    size: int = jax.tree.static()
    queries: int = jax.tree.static()
    """Queries of a block."""

    def forward(
        self, q: Float[Array, "B T Hk R K"], k: Float[Array, "B S Hk K"], v: Float[Array, "B S Hk V"]
    ) -> tuple[Float[Array, "B T Hk R V"], Float[Array, "B T Hk R"]]:
        """The softmax over what this part sees, and the logarithm of its denominator."""
        layout = Layout(self, q, k, v)
        query, key = layout.grouped(q), tuple(jnp.moveaxis(x, 2, 1) for x in (k, v))

        def group(n, carry):
            x, see = layout.take((query, layout.limits), n)
            index, named = layout.indices(n)
            state = first(x, layout.gather(key, index), layout.seen(see, index, named))
            return layout.put(carry, state.result(), n)

        empty = lambda *last: lax.empty((*query.shape[:-1], *last), q.dtype)  # noqa: E731
        return layout.back(lax.fori_loop(0, layout.groups, group, (empty(v.shape[-1]), empty())))

    def backward(self, q, k, v, dy, lse, delta):
        """The gradients of q, k and v. ``lse`` is that of all parts together, ``delta`` is ``sum(dy * y)``."""
        layout = Layout(self, q, k, v)
        query, key = tuple(map(layout.grouped, (q, dy, lse, delta))), tuple(jnp.moveaxis(x, 2, 1) for x in (k, v))

        def group(n, carry):
            dq, dkey = carry
            x, see = layout.take((query, layout.limits), n)
            index, named = layout.indices(n)
            dx, dgathered = gradients(x, layout.gather(key, index), layout.seen(see, index, named))
            return layout.put(dq, dx, n), layout.add(dkey, dgathered, index)

        dkey = tuple(map(jnp.zeros_like, key))
        dq, dkey = lax.fori_loop(0, layout.groups, group, (lax.empty(query[0].shape, q.dtype), dkey))
        return layout.back(dq), *(jnp.moveaxis(x, 1, 2) for x in dkey)


class Layout:
    """Blocks of queries on axis 2 behind sequences and heads, padded on the right to whole groups of blocks."""

    def __init__(self, lists: Lists, q, k, v):
        B, self.T, Hk, R, K = q.shape
        self.size, self.queries, self.S = lists.size, lists.queries, k.shape[1]
        N, n = lists.start.shape[1], lists.start.shape[3]
        # What one block takes: its keys and values, and its scores.
        entries = B * Hk * n * self.size * (K + v.shape[-1] + self.queries * R)
        self.count = max(1, min(N, ENTRIES // entries))
        self.groups = -(-N // self.count)
        start = self._filled(lists.start, self.groups * self.count, -1)
        self.start = jnp.moveaxis(start, 2, 1)  # [B, 1 or Hk, N, n]
        self.document = None
        limits = lists.lo, lists.hi
        if lists.document is not None:
            limits, self.document = (*limits, lists.document[0]), lists.document[1]
        self.limits = tuple(self.grouped(x[:, :, None], -1) for x in limits)  # [B, 1, N, queries]

    def _filled(self, x, length: int, fill: int):
        return jnp.pad(x, ((0, 0), (0, length - x.shape[1]), *[(0, 0)] * (x.ndim - 2)), constant_values=fill)

    def grouped(self, x, fill: int = 0):
        """``[B, T, Hk, ...]`` as ``[B, Hk, N, queries, ...]``."""
        x = self._filled(x, self.groups * self.count * self.queries, fill)
        return jnp.moveaxis(x.reshape(x.shape[0], -1, self.queries, *x.shape[2:]), 3, 1)

    def back(self, xs):
        """The opposite of ``grouped``."""

        def one(x):
            x = jnp.moveaxis(x, 1, 3)
            return x.reshape(x.shape[0], -1, *x.shape[3:])[:, : self.T]

        return jax.tree.map(one, xs)

    def take(self, xs, n) -> Any:
        """Group n of blocks."""
        return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, n * self.count, self.count, 2), xs)

    def put(self, xs, group, n):
        """Stores it."""
        return jax.tree.map(lambda x, g: lax.dynamic_update_slice_in_dim(x, g, n * self.count, 2), xs, group)

    def indices(self, n) -> tuple[Int[Array, "B #Hk count L"], Bool[Array, "B #Hk count L"]]:
        """The keys that the lists of group n name, and which of these there are."""
        start = self.take(self.start, n)[..., None]
        index = start + jnp.arange(self.size, dtype=start.dtype)
        named = (start >= 0) & (index < self.S)
        flat = lambda x: x.reshape(*x.shape[:3], -1)  # noqa: E731
        return flat(jnp.clip(index, 0, self.S - 1)), flat(named)

    def gather(self, keys, index) -> Any:
        """Keys and values ``[B, Hk, count, L, ...]``."""
        one = lambda x, i: x[i]  # noqa: E731
        by_head = jax.vmap(jax.vmap(one, in_axes=(0, None if index.shape[1] == 1 else 0)))
        index = index[:, 0] if index.shape[1] == 1 else index
        return jax.tree.map(lambda x: by_head(x, index), keys)

    def add(self, keys, gathered, index):
        """Adds to them."""
        one = lambda x, g, i: x.at[i].add(g)  # noqa: E731
        by_head = jax.vmap(jax.vmap(one, in_axes=(0, 0, None if index.shape[1] == 1 else 0)))
        index = index[:, 0] if index.shape[1] == 1 else index
        return jax.tree.map(lambda x, g: by_head(x, g, index), keys, gathered)

    def seen(self, limits, index, named) -> Bool[Array, "B #Hk count queries 1 L"]:
        """Which of the gathered keys each query sees."""
        lo, hi, *rest = (x[..., None, None] for x in limits)
        key = index[..., None, None, :]
        seen = named[..., None, None, :] & (lo <= key) & (key <= hi)
        if self.document is None:
            return seen
        document = jax.vmap(lambda d, i: d[i])(self.document, index)
        return seen & (rest[0] == document[..., None, None, :])
