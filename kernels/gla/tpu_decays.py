"""Decays of one gate per token and head inside a TPU kernel's chunk, as columns and rows of sums of gates."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..mosaic import Sums, running_sums
from .tpu_blocks import Segments, lanes, where


class Side:
    """The sums up to the tokens of one head, as a row ``[1, C]`` and, once asked for, as columns ``[C, LANES]``."""

    def __init__(self, row: Sums, column: Sums):
        self.row, self._column = row, column

    @functools.cached_property
    def column(self) -> Sums:
        """Each in all lanes: once, rather than wherever it is used."""
        return Sums(lanes(self._column.coarse), lanes(self._column.fine))


class Decays:
    """The decays of one head in a chunk: ``exp2(until(i) - since(j))`` from token j to token i.

    Args:
      until: of tokens that read.
      since: of tokens that write.
      start: ``since`` of the entering state, ``[1, 1]``; None: 0.
      cut: the segments.
      scale: a factor on what is read within the chunk, where scores are transposed, and from the state; or for each
        token ``[1, C]``, its logarithm.
      enter: see below, ``[C, 1]``, where it is at hand; with the scale.
      leave: likewise.
    """

    def __init__(
        self, until: Side, since: Side, start: Sums | None, cut: Segments | None, scale: float | Sums = 1.0,
        enter: jax.Array | None = None, leave: jax.Array | None = None,
    ):  # fmt: skip
        self.until, self.since, self.start, self.segments, self.scale = until, since, start, cut, scale
        self._enter, self._leave = enter, leave

    def within(self, i: slice, j: slice, *, transposed: bool = False) -> jax.Array:
        """From the tokens of tile j to those of tile i; rows are i's, or j's if transposed."""
        if transposed:
            exponent, row, column = self._scaled[:, i] - self.since.column[j], i, j
        else:
            exponent, row, column = self.until.column[i] - self.since.row[:, j], j, i
        holds = None
        if i == j:
            r, c = (jax.lax.broadcasted_iota(jnp.int32, exponent.shape, axis) for axis in (0, 1))
            holds = r <= c if transposed else r >= c
        if self.segments is not None:
            pair = self.segments.column[column] == self.segments.row[:, row]
            holds = pair if holds is None else holds & pair
        return jnp.exp2(exponent if holds is None else jnp.where(holds, exponent, -jnp.inf))

    @functools.cached_property
    def _scaled(self) -> Sums:
        row = self.until.row
        if isinstance(self.scale, Sums):
            return Sums(row.coarse + self.scale.coarse, row.fine + self.scale.fine)
        return row if self.scale == 1 else Sums(row.coarse, row.fine + math.log2(self.scale))

    @functools.cached_property
    def enter(self) -> jax.Array:
        """From the entering state to each token, ``[C, LANES]``."""
        if self._enter is not None:
            return lanes(self._enter)
        cut, until = self.segments, self.until.column
        found = where(cut and cut.column == cut.before, jnp.exp2(self._from_start(until)))
        return found * self.scale if isinstance(self.scale, float) and self.scale != 1 else found

    @functools.cached_property
    def leave(self) -> jax.Array:
        """From each token to the leaving state, ``[C, LANES]``."""
        if self._leave is not None:
            return lanes(self._leave)
        cut = self.segments
        return where(cut and cut.column == cut.last, jnp.exp2(self.until.row[:, -1:] - self.since.column))

    @functools.cached_property
    def through(self) -> jax.Array:
        """From the entering to the leaving state, ``[1, 1]``."""
        cut = self.segments
        return where(cut and cut.before == cut.last, jnp.exp2(self._from_start(self.until.row[:, -1:])))

    def _from_start(self, until: Sums) -> jax.Array:
        return until.whole if self.start is None else until - self.start


def sides(sums: Sums) -> Callable[[int], Side]:
    """Those of each head of ``[heads, C]`` sums."""
    columns = sums.columns()
    return lambda h: Side(sums[h : h + 1], columns[:, h : h + 1])


def read_decays(g: jax.Array, segments: Segments | None, scale: float = 1.0) -> Callable[[int], Decays]:
    """The decays of each head of ``[heads, C]`` gates."""
    side = sides(running_sums(g))

    def of(h: int) -> Decays:
        one = side(h)
        return Decays(one, one, None, segments, scale)

    return of
