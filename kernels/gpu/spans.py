"""A sequence over more blocks than there are rows and heads: cut into S spans, exactly, in two passes.

A span is a row of the batch, ``[B, T, ...]`` as ``[B S, T / S, ...]``. What leaves one depends linearly on what enters:

    E_{s+1} = A_s E_s + L_s        forward: the states that enter
    D_{s-1} = A_s^T D_s + M_s      backward: the cotangents of the states that leave

The first pass walks through all spans at once, from zeros and without outputs, to L (or M); A is a product of decays
or, where something is erased, what a walk makes of the identity. The second is the op, on spans that now know what
enters them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.lax import Precision

from .. import gpu
from . import walk
from .walk import Arrays, Rows

GAIN = 0.8
"""The part of the time that must be left at most, or the sequence stays whole: by a count, since nothing was timed."""
LINK = 4.0
"""What it takes to pass one border of spans, and to begin a pass, in walks through 64 tokens: some microseconds."""


def count(blocks: int, tokens: int, price: float) -> int:
    """Into how many spans to cut: the power of two of the least time, or 1 where the card is as good as full.

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

    best = min((1 << n for n in range(length.bit_length())), key=time)
    return best if time(best) <= GAIN * time(1) else 1


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
    """What enters each span, ``[B S, ...]``, if ``first`` enters the first, ``carry(s, x) + added[:, s]`` the next one.

    ``added`` is ``[B (S - 1), ...]``: of all spans but the last. If it goes ``back``, the last span is the first, and
    they are of all but that.
    """
    added = added.reshape(first.shape[0], -1, *first.shape[1:])
    n, found = added.shape[1], [first]
    for i in range(n):
        s = n - 1 - i if back else i
        found.append(carry(s + back, found[-1]) + added[:, s])
    return jnp.stack(found[::-1] if back else found, 1).reshape(-1, *first.shape[1:])


def entering(S: int, x: Arrays, first: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """The states that enter the spans, and what carries a state across each: A, to be kept for ``leaving``.

    ``x`` is what ``walk`` takes, without what it takes for outputs.
    """
    if S == 1:
        return first, None
    B, H, K, V = first.shape
    written = walk.last_state(x, jnp.zeros((B * (S - 1), H, K, V)), Rows(S, skips_first=False))
    if "a" in x:
        one = jnp.broadcast_to(jnp.eye(K), (B * S, H, K, K))
        across = walk.last_state({name: array for name, array in x.items() if name != "v"}, one, None)
    else:
        across = passing(x)
    return chained(lambda s, state: _times(of_span(S, s, across), state), first, written), across


def leaving(S: int, scale: float, x: Arrays, dy: jax.Array, dlast: jax.Array, across: jax.Array | None) -> jax.Array:
    """The cotangents of the states that leave the spans."""
    if across is None:
        return dlast
    B, H, K, V = dlast.shape
    rows, zeros = Rows(S, skips_first=True), jnp.zeros((B * (S - 1), H, K, V))
    found = walk.first_cotangent(scale, x, dy, zeros, rows)
    adjoint = across.swapaxes(2, 3) if across.ndim == 4 else across
    return chained(lambda s, state: _times(of_span(S, s, adjoint), state), dlast, found, back=True)


def passing(x: Arrays) -> jax.Array:
    """What decays alone leave of a state across each span: ``[B S, H, 1 or K]``."""
    if "sums" in x:
        return jnp.exp2(x["sums"][..., -1].sum((2, 3)))[..., None]
    return x["through"].prod(2)


def _times(across: jax.Array, state: jax.Array) -> jax.Array:
    """By decays ``[B, H, 1 or K]`` or a matrix."""
    if across.ndim == 3:
        return across[..., None] * state
    return jnp.matmul(across, state, precision=Precision.HIGHEST)
