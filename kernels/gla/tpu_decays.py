"""Decays of one gate per token and head inside a TPU kernel's chunk, from sums of gates, and what they scale."""

import functools
import math

import jax
import jax.numpy as jnp

from ..tpu.mosaic import LANES, Spread, Sums, dot
from .tpu_blocks import Plan, Segments, lanes, where


class Decays:
    """The decays in a chunk of all heads of a block: ``exp2(until(i) - since(j))`` from token j to token i.

    Scores are transposed, their rows the tokens that are read: then what belongs to a token that reads is a row, made
    of all heads at a time, and only ``since`` has to be brought into columns.

    Args:
      until: of tokens that read, ``[heads, C]``.
      since: of tokens that write, ``[heads, C]``.
      start: ``since`` of the entering state, ``[heads, 1]``; None: 0.
      cut: the segments.
      scale: a factor on what a token reads, or for each its logarithm ``[heads, C]``.
    """

    def __init__(self, until: Sums, since: Sums, start: Sums | None, cut: Segments | None, scale: float | Sums = 1.0):
        from_start = (lambda x: x.whole) if start is None else (lambda x: x - start)
        end = until[:, -1:]
        self.leave = where(cut and cut.row == cut.last, jnp.exp2(end - since))
        """From each token to the leaving state, ``[heads, C]``."""
        self.through = where(cut and cut.before == cut.last, jnp.exp2(from_start(end)))
        """From the entering to the leaving state, ``[heads, 1]``."""
        if isinstance(scale, Sums):
            until = Sums(until.coarse + scale.coarse, until.fine + scale.fine)
        else:
            until = Sums(until.coarse, until.fine + math.log2(scale))
        self.enter = where(cut and cut.row == cut.before, jnp.exp2(from_start(until)))
        """From the entering state to each token, ``[heads, C]``."""
        self.until, self.since, self.segments = until, since, cut

    @functools.cached_property
    def _columns(self) -> Sums:
        return self.since.columns()

    @functools.cached_property
    def _spread(self) -> Spread:
        return Spread(*self.since)

    def columns(self, h: int) -> Sums:
        """``since`` of head h, each in all lanes, ``[C, LANES]``: once, rather than wherever it is used."""
        coarse, fine = self._columns
        return Sums(lanes(coarse[:, h : h + 1]), lanes(fine[:, h : h + 1]))

    def product_columns(self, h: int) -> Sums:
        """The same by a product, for where more waits for the unit that crosses lanes than for the matrix unit."""
        return Sums(*self._spread.of(h))

    def within(self, h: int, j: slice, since: Sums) -> jax.Array:
        """From the tokens of a tile, which are rows, to those from there on."""
        row, parts = self.until[h : h + 1], []
        for start in range(j.start, row.coarse.shape[1], LANES):
            i = slice(start, start + LANES)
            exponent, holds = row[:, i] - since[j], None
            if i == j:
                r, c = (jax.lax.broadcasted_iota(jnp.int32, exponent.shape, axis) for axis in (0, 1))
                holds = r <= c
            if self.segments is not None:
                pair = self.segments.column[j] == self.segments.row[:, i]
                holds = pair if holds is None else holds & pair
            parts.append(jnp.exp2(exponent if holds is None else jnp.where(holds, exponent, -jnp.inf)))
        return jnp.concatenate(parts, 1)


def score_products(plan: Plan, q, k, n: int) -> list[jax.Array]:
    """The products of each tile of keys with the queries from there on, of key head n."""
    return [dot(k[0, n, :, j], q[0, n, :, j.start :], (0, 0)) for j in plan.tiles()]


def last_of(C: int, x: jax.Array) -> jax.Array:
    """``x`` as the last of C columns, with zeros before."""
    short = C - x.shape[1]
    return jnp.concatenate([jnp.zeros((x.shape[0], short), x.dtype), x], 1) if short else x
