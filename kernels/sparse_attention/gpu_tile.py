"""What a tile of 64 queries and one of 64 keys do to each other on a Hopper GPU: for intervals and lists of keys alike.

``seen`` says which keys each query sees. Carries are tiles of 64 columns of K or V, in registers. Before a step returns
all of its shared memory has been read.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..gpu.mosaic import (
    LOG2E,
    TILE,
    add,
    by_column,
    by_row,
    column,
    finished,
    part,
    product,
    put,
    row,
    sums,
    transposed,
    zero_column,
    zeros,
)  # fmt: skip
from .softmax import EMPTY

WIDTH = 256
"""The most columns of gradients that the registers of a block hold besides all else."""


def nothing(V: int) -> tuple:
    """The softmax over nothing."""
    return tuple(zeros() for _ in range(V // TILE)), zero_column(), zero_column(EMPTY)


def attend(query, k, v, seen, low, carry: tuple) -> tuple:
    """The softmax over what it was over, and a tile of keys."""
    value, total, most = carry
    s = jnp.where(seen, product(query, transposed(k)) * LOG2E, -jnp.inf)
    top = jnp.maximum(most, jnp.max(s, 1))
    p, shrink = jnp.exp2(s - by_row(top)), jnp.exp2(most - top)
    put(low, p)
    value = tuple(by_row(shrink) * x + product(low, v.at[:, part(c)]) for c, x in enumerate(value))
    finished()
    return value, shrink * total + jnp.sum(p, 1), top


def attended(carry: tuple, out, log) -> None:
    """Writes the weighted mean of the values, and the logarithm of the denominator."""
    value, total, most = carry
    total = jnp.where(total > 0, total, 1.0)
    for c, x in enumerate(value):
        out[:, part(c)] = (x / by_row(total)).astype(out.dtype)
    log[...] = most / LOG2E + jnp.log(total)


def query_stats(stat) -> tuple[jax.Array, jax.Array]:
    """The logarithm of the denominator and ``sum(dy y)``, ``[2, 64]``, by queries that are rows."""
    return by_row(column(stat.at[0])), by_row(column(stat.at[1]))


def add_query_gradient(query, dout, k, v, seen, stats: tuple, low, dquery: tuple) -> None:
    """Adds to the gradient of the queries, ``sums``, what is by a tile of keys."""
    lse, delta = stats
    s = product(query, transposed(k)) * LOG2E - lse
    p = jnp.exp2(jnp.where(seen, s, -jnp.inf))
    put(low, p * (product(dout, transposed(v)) - delta))
    add(*((x, low, k.at[:, part(c)]) for c, x in enumerate(dquery)))
    finished()


class Wanted(NamedTuple):
    """Which gradients a block of the card makes of a tile of keys."""

    keys: bool
    values: bool

    def sums(self, run: Callable, K: int, V: int) -> list[tuple[jax.Array, ...]]:
        """The gradients that ``run(dkey, dvalue)`` adds to; what is not wanted has no tiles."""
        n = K // TILE * self.keys
        found = sums(lambda refs: run(refs[:n], refs[n:]), n + V // TILE * self.values)
        return self.of(found[:n], found[n:])

    def of(self, keys, values) -> list:
        """What there is for each that is wanted."""
        return [x for x, wanted in zip((keys, values), self, strict=True) if wanted]


def key_gradients(made: Callable[[Wanted], list[jax.Array]], K: int, V: int) -> list[jax.Array]:
    """Of k and v, by ``made``, or by two of it where registers do not hold both: weights are then made twice."""
    if K + V <= WIDTH:
        return made(Wanted(True, True))
    return made(Wanted(True, False)) + made(Wanted(False, True))


def add_key_gradients(key, value, query, dout, seen, stat, low, dkey: tuple, dvalue: tuple) -> None:
    """Adds to those of keys and values, as far as there are any, what is by a tile of queries; all is transposed."""
    s = product(key, transposed(query)) * LOG2E - by_column(row(stat.at[0]))
    p = jnp.exp2(jnp.where(seen, s, -jnp.inf))
    if dvalue:
        put(low, p)
        add(*((x, low, dout.at[:, part(c)]) for c, x in enumerate(dvalue)))
    if dkey:
        put(low, p * (product(value, transposed(dout)) - by_column(row(stat.at[1]))))
        add(*((x, low, query.at[:, part(c)]) for c, x in enumerate(dkey)))
    finished()


def write(*pairs: tuple[Any, tuple]) -> None:
    """Carries to shared memory: there to what has been read, so that two blocks fit a multiprocessor."""
    for ref, xs in pairs:
        for c, x in enumerate(xs):
            ref[:, part(c)] = x.astype(ref.dtype)
