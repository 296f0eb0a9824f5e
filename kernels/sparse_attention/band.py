"""Attention to an interval of keys that ends near the query: contiguous tiles, no gather.

Queries are taken in blocks of C, and with each the keys that any of them may see, in tiles: one where the interval is
short, as for a window, and one after the other with a running softmax where it is long. With a dilation d the tokens
are first laid out by their remainder: token ``u d + r`` is step u of sequence r, and each is a sequence of its own.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from .softmax import first, gradients, more, nothing

QUERIES = 128
"""The most queries of a block, ..."""
KEYS = 1024
"""... the most keys of the only tile of a block, ..."""
TILE = 512
"""... and those of one of several. All were fastest on two CPU cores."""
ENTRIES = 2**21
"""Where there are many heads and sequences a block is smaller: no more scores than this at once."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Band:
    """Query t, which is token ``S - T + t``, sees the keys ``lo[t] .. hi[t]`` at multiples of ``dilation`` before it.

    No key is farther from it than ``reach`` times the dilation, or later than it.
    """

    lo: Int[Array, "B T"] | Any
    hi: Int[Array, "B T"] | Any
    reach: int = jax.tree.static()
    dilation: int = jax.tree.static(default=1)

    def forward(
        self, q: Float[Array, "B T Hk R K"], k: Float[Array, "B S Hk K"], v: Float[Array, "B S Hk V"]
    ) -> tuple[Float[Array, "B T Hk R V"], Float[Array, "B T Hk R"]]:
        """The softmax over what this part sees, and the logarithm of its denominator."""
        layout = Layout(self, q, k)
        query, key, limits = layout.queries(q), tuple(map(layout.keys, (k, v))), layout.limits(self)

        def block(n, carry):
            x, see = layout.block((query, limits), n)

            def body(j, state):
                keys, seen = layout.tile(key, n, j), layout.seen(see, n, j)
                return first(x, keys, seen) if state is None else more(state, x, keys, seen)

            if layout.tiles == 1:
                state = body(0, None)
            else:
                state = lax.fori_loop(layout.first(n), layout.tiles, body, nothing(x, v.shape[-1]))
            return layout.put(carry, state.result(), n)

        empty = lambda *last: lax.empty((*query.shape[:-1], *last), q.dtype)  # noqa: E731
        return layout.back(lax.fori_loop(0, layout.blocks, block, (empty(v.shape[-1]), empty())))

    def backward(self, q, k, v, dy, lse, delta):
        """The gradients of q, k and v. ``lse`` is that of all parts together, ``delta`` is ``sum(dy * y)``."""
        layout = Layout(self, q, k)
        query, key = tuple(map(layout.queries, (q, dy, lse, delta))), tuple(map(layout.keys, (k, v)))
        limits = layout.limits(self)

        def block(n, carry):
            dq, dkey = carry
            x, see = layout.block((query, limits), n)

            def body(j, carry):
                dx, dkey = carry
                d, dtile = gradients(x, layout.tile(key, n, j), layout.seen(see, n, j))
                return d if dx is None else dx + d, layout.add(dkey, dtile, n, j)

            if layout.tiles == 1:
                dx, dkey = body(0, (None, dkey))
            else:
                dx, dkey = lax.fori_loop(layout.first(n), layout.tiles, body, (jnp.zeros_like(x[0]), dkey))
            return layout.put(dq, dx, n), dkey

        dkey = tuple(map(jnp.zeros_like, key))
        dq, dkey = lax.fori_loop(0, layout.blocks, block, (lax.empty(query[0].shape, q.dtype), dkey))
        return layout.back(dq), *layout.keys_back(dkey)


def spread(x: Shaped[Array, "B n ..."], d: int, steps: int, fill: int = 0) -> Shaped[Array, "Bd steps ..."]:
    """Padded on the left to so many steps, by remainder."""
    x = jnp.pad(x, ((0, 0), (steps * d - x.shape[1], 0), *[(0, 0)] * (x.ndim - 2)), constant_values=fill)
    x = x.reshape(x.shape[0], steps, d, *x.shape[2:])
    return jnp.moveaxis(x, 2, 1).reshape(-1, steps, *x.shape[3:])


def gather(x: Shaped[Array, "Bd steps ..."], d: int, n: int) -> Shaped[Array, "B n ..."]:
    """The opposite of ``spread``."""
    x = jnp.moveaxis(x.reshape(-1, d, *x.shape[1:]), 1, 2)
    x = x.reshape(x.shape[0], -1, *x.shape[3:])
    return x[:, x.shape[1] - n :]


def step_limits(band: Band, S: int) -> tuple[Int[Array, "Bd steps"], Int[Array, "Bd steps"]]:
    """The first and the last step of its own sequence that each query sees, of S keys; what fills up sees nothing."""
    (B, T), d = band.lo.shape, band.dilation
    short, remainder = -S % d, jnp.arange(B * d, dtype=jnp.int32)[:, None] % d
    lo, hi = spread(band.lo, d, -(-T // d), S), spread(band.hi, d, -(-T // d), -1 - short)
    return -((remainder - short - lo) // d), (hi + short - remainder) // d


class Layout:
    """Time on axis 2 behind sequences and heads, padded on the left: queries to whole blocks, keys to whole tiles."""

    def __init__(self, band: Band, q: Float[Array, "B T Hk R K"], k: Float[Array, "B S Hk K"]):
        B, self.T, Hk, R, _ = q.shape
        self.S, self.d = k.shape[1], band.dilation
        steps, self.steps = -(-self.T // self.d), -(-self.S // self.d)
        room = ENTRIES // (B * self.d * Hk * R)
        C = QUERIES
        while C > 32 and C * min(C + band.reach, KEYS) > room:
            C //= 2
        self.C = min(C, steps)
        span = self.C + band.reach
        self.L = span if span <= KEYS else TILE
        self.tiles, self.blocks = -(-span // self.L), -(-steps // self.C)
        self.start = self.steps - (self.blocks - 1) * self.C - self.tiles * self.L  # where the first tile starts
        self.margin = max(0, -self.start)

    def queries(self, x):
        """``[B, T, Hk, ...]`` as ``[B d, Hk, blocks C, ...]``."""
        return jnp.moveaxis(spread(x, self.d, self.blocks * self.C), 2, 1)

    def keys(self, x):
        """``[B, S, Hk, ...]`` as ``[B d, Hk, margin + steps, ...]``."""
        return jnp.moveaxis(spread(x, self.d, self.margin + self.steps), 2, 1)

    def limits(self, band: Band):
        """lo and hi, as ``queries``; what fills up sees nothing."""
        return tuple(spread(x, self.d, self.blocks * self.C, -1)[:, None] for x in (band.lo, band.hi))

    def back(self, xs):
        """The opposite of ``queries``."""
        return jax.tree.map(lambda x: gather(jnp.moveaxis(x, 1, 2), self.d, self.T), xs)

    def keys_back(self, xs):
        """The opposite of ``keys``."""
        return jax.tree.map(lambda x: gather(jnp.moveaxis(x, 1, 2), self.d, self.S), xs)

    def block(self, xs, n) -> Any:
        """Block n of queries."""
        return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, n * self.C, self.C, 2), xs)

    def put(self, xs, block, n):
        """Stores it."""
        return jax.tree.map(lambda x, b: lax.dynamic_update_slice_in_dim(x, b, n * self.C, 2), xs, block)

    def _at(self, n, j):
        return self.margin + self.start + n * self.C + j * self.L

    def tile(self, keys, n, j) -> Any:
        """Tile j of block n of queries."""
        return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, self._at(n, j), self.L, 2), keys)

    def add(self, keys, tile, n, j):
        """Adds to it."""
        at = self._at(n, j)
        put = lambda x, new, old: lax.dynamic_update_slice_in_dim(x, old + new, at, 2)  # noqa: E731
        return jax.tree.map(put, keys, tile, self.tile(keys, n, j))

    def first(self, n) -> Int[Array, ""]:
        """The first tile of block n that is not all before the first key."""
        return jnp.maximum(0, -(self.start + n * self.C) // self.L)

    def seen(self, limits, n, j) -> Bool[Array, "Bd 1 C 1 L"]:
        """Which keys of the tile each query sees."""
        lo, hi = (x[..., None, None] for x in limits)
        step = self._at(n, j) - self.margin + jnp.arange(self.L, dtype=jnp.int32)
        remainder = jnp.arange(lo.shape[0], dtype=jnp.int32) % self.d
        token = step * self.d + remainder[:, None] - (self.steps * self.d - self.S)
        token = token[:, None, None, None]
        return (lo <= token) & (token <= hi)
