"""What the TPU kernels are written with. Imported only where one runs."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.lax import Precision

VMEM = 48 * 2**20
"""Bytes of a core's vector memory that a kernel may take; the least that a generation has is 64 MiB."""
LANES = 128
"""The width of a vector register: K and V are padded to multiples of it where they are the last axis."""


def call(kernel: Callable, *, grid: Sequence[int], sequential: int = 1, **kwargs: Any) -> Callable:
    """``pl.pallas_call`` with this library's limits; the last ``sequential`` axes of the grid run in order."""
    semantics = ("parallel",) * (len(grid) - sequential) + ("arbitrary",) * sequential
    params: Any = {"dimension_semantics": semantics, "vmem_limit_bytes": VMEM}
    return pl.pallas_call(kernel, grid=tuple(grid), compiler_params=pltpu.CompilerParams(**params), **kwargs)


def dot(a: jax.Array, b: jax.Array, contract: tuple[int, int] = (1, 0)) -> jax.Array:
    """The matrix product over one axis of each, summed in float32; float32 factors are not rounded."""
    precision = Precision.DEFAULT if a.dtype == b.dtype == "bfloat16" else Precision.HIGHEST
    dims = (((contract[0],), (contract[1],)), ((), ()))
    return jax.lax.dot_general(a, b, dims, precision=precision, preferred_element_type="float32")


LOG2E = 1.4426950408889634


class Sums(NamedTuple):
    """Sums of gates from a chunk's beginning, in two parts whose differences lose nothing; to the base 2.

    ``coarse`` is a multiple of 1/256 below 2^16, so that a difference of two is exact in float32; ``fine`` is at most
    1/2. Both have tokens on one axis; the decay from token j to token i is ``exp2`` of ``until(i) - until(j)``.
    """

    coarse: jax.Array
    fine: jax.Array

    def __getitem__(self, index: Any) -> "Sums":
        return Sums(self.coarse[index], self.fine[index])

    def __sub__(self, other: "Sums") -> jax.Array:
        return (self.coarse - other.coarse) + (self.fine - other.fine)

    @property
    def whole(self) -> jax.Array:
        """The sums themselves, rounded."""
        return self.coarse + self.fine

    def columns(self) -> "Sums":
        """With tokens on the first axis."""
        return Sums(self.coarse.T, self.fine.T)


def running_sums(g: jax.Array, weakest: float = -128.0) -> Sums:
    """Natural-log gates ``[n, C]``, summed up to and including each token on the matrix unit.

    Its factors are bfloat16, which holds integers up to 256: multiples of 1/256 are summed as two such integers,
    without error, and the rest of each gate as three bfloat16 terms. What is weaker than ``2 ** weakest``, which may be
    -256, is that: what decays by 2^-128 in one token is 0 after it.
    """
    n, C = g.shape
    g = jnp.maximum(g * LOG2E, weakest)
    units = jnp.round(g * 256)
    high = jnp.floor(units / 256)
    terms = [high.astype(jnp.bfloat16), (units - 256 * high).astype(jnp.bfloat16), *split(g - units / 256)]
    sums = dot(jnp.concatenate(terms, 0), triangle(C, C, lambda j, i: j <= i))
    high, low, a, b, c = (sums[m * n : (m + 1) * n] for m in range(5))
    return Sums(high + low / 256, a + (b + c))


def split(x: jax.Array) -> list[jax.Array]:
    """Three bfloat16 terms whose sum is ``x`` to the last bit of float32."""
    terms = []
    for _ in range(3):
        terms.append(x.astype(jnp.bfloat16))
        x = x - terms[-1].astype(jnp.float32)
    return terms


class Terms:
    """Rows of all heads ``[heads, n]`` as further rows of a left factor, without rounding."""

    def __init__(self, x: jax.Array, low):
        self.count, self.terms = x.shape[0], split(x) if low == jnp.bfloat16 else [x]

    def below(self, x: jax.Array) -> jax.Array:
        """The rows, below those of another left factor."""
        return jnp.concatenate([x, *self.terms], 0)

    def of(self, h: int, product: jax.Array) -> jax.Array:
        """What the row of head h gave, ``[1, n]``."""
        start = product.shape[0] - self.count * len(self.terms) + h
        ends = range(start, product.shape[0], self.count)
        return functools.reduce(jnp.add, [product[n : n + 1] for n in ends])


class Spread:
    """Rows of all heads ``[heads, n]`` as columns, each in all lanes, by products with zeros and ones."""

    def __init__(self, *xs: jax.Array):
        self.count, self.parts = xs[0].shape[0], len(xs)
        terms = [term.astype(jnp.float32) for x in xs for term in split(x)]
        self.columns = jnp.concatenate(terms, 0).T.astype(jnp.bfloat16)

    def of(self, h: int) -> list[jax.Array]:
        """The row of head h of each, ``[n, LANES]``."""
        shape = self.columns.shape[1], self.parts * LANES
        row, lane = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
        chosen = (row % self.count == h) & (row // (3 * self.count) == lane // LANES)
        found = dot(self.columns, chosen.astype(jnp.float32).astype(jnp.bfloat16))
        return [found[:, n : n + LANES] for n in range(0, found.shape[1], LANES)]


def exact_sums(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """``x @ matrix`` where the matrix holds zeros and ones in bfloat16, with ``x`` as exact as float32 is."""
    n = x.shape[0]
    terms = dot(jnp.concatenate(split(x), 0), matrix)
    return terms[:n] + (terms[n : 2 * n] + terms[2 * n :])


def triangle(rows: int, columns: int, holds: Callable) -> jax.Array:
    """Zeros and ones in bfloat16: where ``holds(row, column)``."""
    index = lambda axis: jax.lax.broadcasted_iota(jnp.int32, (rows, columns), axis)  # noqa: E731
    return holds(index(0), index(1)).astype(jnp.float32).astype(jnp.bfloat16)
