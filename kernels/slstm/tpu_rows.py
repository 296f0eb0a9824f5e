"""How the TPU kernels of sLSTM hold tokens: heads and sequences in the rows of registers, channels in lanes.

The heads of a register read matrices of their own in one product: the hidden states stand block by block in a row of
all their widths, zeros beside them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ..tpu.mosaic import LANES, dot

SUBLANES = 8
STATE = 4
"""Parts of the state, q, n, h and m; of the gates, i, f, z and o; and of what tokens keep, the state before them."""


class Plan(NamedTuple):
    """How the arrays are cut. Hashable: the kernels are compiled for it."""

    C: int
    """Tokens of a grid step, a multiple of 16."""
    B: int
    """Sequences of a grid step."""
    heads: int
    """Heads that share registers."""
    groups: int
    """As many times so many heads are in a grid step."""
    D: int
    """Channels of a head, a multiple of 128."""
    terms: int
    """How many bfloat16 numbers make one of R, and of the state that meets it."""
    masked: bool
    """Whether tokens are marked: 1 where the state is reset before them, -1 where it holds."""

    @property
    def rows(self) -> int:
        """Heads times sequences, in whole registers."""
        return -(-self.heads * self.B // SUBLANES) * SUBLANES

    @property
    def tiles(self) -> int:
        """Registers of a head's width."""
        return self.D // LANES

    def each(self) -> list[tuple[int, int, int]]:
        """The heads of a grid step, by group and place in it, and the first of their rows."""
        return [(n, j, j * self.B) for n in range(self.groups) for j in range(self.heads)]

    def lanes(self, n: int, j: int, parts: int = STATE) -> slice:
        """Where a head is in a block whose lanes are heads, parts and channels."""
        width = parts * self.D
        return slice((n * self.heads + j) * width, (n * self.heads + j + 1) * width)

    def chunk(self, row: int, count: int = 1) -> slice:
        """The tokens of a row in memory that is read token by token."""
        return slice(row * self.C, (row + count) * self.C)

    def token(self, t) -> pl.Slice:
        """The rows of a token there."""
        return pl.ds(t, self.rows, stride=self.C)


def scatter(ref, n: int, rows: slice | pl.Slice, x: jax.Array, first: int = 0) -> None:
    """Writes the lanes of ``x`` to registers of a group, from the ``first`` on."""
    for k in range(x.shape[1] // LANES):
        ref[n, first + k, rows] = x[:, k * LANES : (k + 1) * LANES].astype(jnp.float32)


def gather(ref, n: int, rows: slice | pl.Slice, first: int, count: int) -> jax.Array:
    """The inverse of ``scatter``."""
    return jnp.concatenate([ref[n, first + k, rows] for k in range(count)], 1)


def product(x: jax.Array, weights: Sequence[jax.Array], shape: Callable = lambda x: x, contract=(1, 0)) -> jax.Array:
    """``shape(x)`` times the sum of the weights, terms in bfloat16, as exact as these are.

    What costs is to bring weights into the matrix unit: the terms of x go through it as rows of one factor.
    """
    rows, left, terms = x.shape[0], x, []
    for _ in range(max(2, len(weights))):
        terms.append(left.astype(jnp.bfloat16).astype(jnp.float32))
        left = left - terms[-1]
    total = 0.0
    for k, weight in reversed(list(enumerate(weights))):
        some = terms[: len(terms) - k]
        out = dot(shape(jnp.concatenate(some, 0)).astype(jnp.bfloat16), weight, contract)
        total = total + sum(out[m * rows : (m + 1) * rows] for m in reversed(range(len(some))))
    return jnp.asarray(total)


def spread(plan: Plan) -> Callable[[jax.Array], jax.Array]:
    """From rows of heads to rows of all heads' widths, zero but in their own."""

    def shape(x: jax.Array) -> jax.Array:
        if plan.heads == 1:
            return x
        head = jax.lax.broadcasted_iota(jnp.int32, x.shape, 0) % plan.rows // plan.B
        return jnp.concatenate([jnp.where(head == j, x, 0) for j in range(plan.heads)], 1)

    return shape


def parts(x: jax.Array, D: int) -> list[jax.Array]:
    """Lanes in parts of a head's width."""
    return [x[:, k : k + D] for k in range(0, x.shape[1], D)]


def wide(plan: Plan, mark: jax.Array) -> jax.Array:
    """Marks over all channels."""
    return jnp.concatenate([mark] * plan.tiles, 1)


def read_marks(plan: Plan, marks, refs) -> None:
    """The marks of tokens, for every row; those of rows that nobody uses are of no head."""
    if marks is not None:
        for row in range(plan.rows):
            refs[0][0, 0, plan.chunk(row)] = marks[row % plan.B]
