"""A sequence over more blocks than there are rows and heads: cut into S spans, exactly, in two passes.

A span is a row of the batch, ``[B, T, ...]`` as ``[B S, T / S, ...]``. What leaves one depends linearly on what enters:

    E_{s+1} = A_s E_s + L_s        forward: the states that enter
    D_{s-1} = A_s^T D_s + M_s      backward: the cotangents of the states that leave

The first pass walks through all spans at once, from zeros and without outputs, to L (or M); A is what is left of a
state. The second pass is the op, on spans that now know what enters them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .. import gpu

GAIN = 0.8
"""The part of the time that must be left at most, or the sequence stays whole: by a count, since nothing was timed."""
LINK = 4.0
"""What it takes to pass one border of spans, and to begin a pass, in walks through 64 tokens: some microseconds."""


def count(blocks: int, tokens: int, price: float) -> int:
    """Into how many spans to cut: the number of the least time, or 1 where that gains too little.

    A multiprocessor walks with one block at a time, so that the time of a pass is that of the blocks one after the
    other, times the length of a span.

    Args:
      blocks: how many there are without a cut.
      tokens: the length of the sequence, or of what a block walks through.
      price: of the first pass, as a part of the second.
    """
    card, length = gpu.multiprocessors(), -(-tokens // 64)

    def time(S: int) -> float:
        first, second = (-(-n * blocks // card) for n in (S - 1, S))
        return (price * first + second) * -(-length // S) + (LINK * S if S > 1 else 0.0)

    best = min(range(1, min(length, 2 * card) + 1), key=time)
    return best if time(best) <= GAIN * time(1) else 1


class Rows(NamedTuple):
    """Which rows of the batch the first pass walks through: of every ``S`` all but the first, or all but the last."""

    S: int
    skips_first: bool

    def __call__(self, b):
        """Where the b-th of them is."""
        return b + b // (self.S - 1) + int(self.skips_first)


def both_ways(blocks: int, tokens: int, forward: float, backward: float) -> tuple[int, int]:
    """``count`` forward and backward, where tokens may be cut anew: whole one way, or into as many spans both ways."""
    S = count(blocks, tokens, forward)
    return S, S if S > 1 else count(blocks, tokens, backward)


def cut(S: int, x: jax.Array) -> jax.Array:
    """``[B, T, ...]`` as ``[B S, T / S, ...]``."""
    return x.reshape(x.shape[0] * S, -1, *x.shape[2:])


def joined(S: int, x: jax.Array) -> jax.Array:
    """The inverse of ``cut``."""
    return x.reshape(x.shape[0] // S, -1, *x.shape[2:])


def of_span(S: int, s: int, x: jax.Array) -> jax.Array:
    """What ``x`` ``[B S, ...]`` has of the s-th span."""
    return x.reshape(-1, S, *x.shape[1:])[:, s]


def chained(carry: Callable, first: jax.Array, added: jax.Array, *, back: bool = False) -> jax.Array:
    """What enters each span, ``[B S, ...]``: ``first``, and where x enters span s, ``carry(s, x) + added[s]`` after it.

    ``added`` is ``[B (S - 1), ...]``: of all spans but the last, counted from 0. If it goes ``back``, the last span is
    the first, and they are of all but span 0, and counted from that.
    """
    added = added.reshape(first.shape[0], -1, *first.shape[1:])
    order, found = range(added.shape[1]), [first]
    for s in reversed(order) if back else order:
        found.append(carry(s, found[-1]) + added[:, s])
    return jnp.stack(found[::-1] if back else found, 1).reshape(-1, *first.shape[1:])
