"""Halves of blocks of rows inside a TPU kernel: at level n of the dyadic split a block's halves have 2^n rows each.

Halves of whole registers are picked by slices, which cost nothing; smaller ones by masks and rotations.
"""

import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import tpu as pltpu

TILE = 8
"""Rows of a float32 register: blocks of so many rows are moved without a shuffle."""


def only(half: int, x, y, level: int):
    """x, and y in the other halves than the left (0) or the right (1) ones, if so much less of x need be computed."""
    if 1 << level < TILE:
        return x
    pairs = enumerate(zip(blocks(x, level), blocks(y, level), strict=True))
    return jnp.concatenate([x if n % 2 == half else y for n, (x, y) in pairs])


def add_right(x, y, level: int):
    """x, and in right halves also y."""
    if 1 << level < TILE:
        return x + jnp.where(in_right(level, x.shape), y, 0.0)
    pairs = enumerate(zip(blocks(x, level), blocks(y, level), strict=True))
    return jnp.concatenate([x + y if n % 2 else x for n, (x, y) in pairs])


def rights_of(x, level: int):
    """The rows of right halves."""
    return jnp.concatenate(blocks(x, level)[1::2])


def add_rows(x, y, level: int):
    """x and y, which may be the rows of right halves only."""
    if x.shape == y.shape:
        return x + y
    rights = iter(blocks(y, level))
    return jnp.concatenate([b + next(rights) if n % 2 else b for n, b in enumerate(blocks(x, level))])


def in_right(level: int, shape: tuple[int, ...]):
    """Whether a row is in the right half of its block."""
    return (lax.broadcasted_iota(jnp.int32, shape, 0) >> level) & 1 == 1


def blocks(x, level: int) -> list:
    """The halves of all blocks, in order."""
    return [x[n : n + (1 << level)] for n in range(0, x.shape[0], 1 << level)]


def down(x, level: int):
    """Rows of left halves, in the right halves."""
    if 1 << level < TILE:
        return pltpu.roll(x, 1 << level, 0)
    parts = blocks(x, level)
    return jnp.concatenate([parts[n - n % 2] for n in range(len(parts))])


def up(x, level: int):
    """Rows of right halves, in the left halves."""
    if 1 << level < TILE:
        return pltpu.roll(x, x.shape[0] - (1 << level), 0)
    parts = blocks(x, level)
    return jnp.concatenate([parts[n | 1] for n in range(len(parts))])


def pack(right, left, level: int):
    """The right halves of the one array; in the left halves the right halves of the other."""
    if 1 << level < TILE:
        return jnp.where(in_right(level, right.shape), right, up(left, level))
    rights, lefts = blocks(right, level), blocks(left, level)
    return jnp.concatenate([rights[n] if n % 2 else lefts[n + 1] for n in range(len(rights))])


def swap(x, level: int):
    """Left and right halves exchanged."""
    if 1 << level < TILE:
        return jnp.where(in_right(level, x.shape), down(x, level), up(x, level))
    parts = blocks(x, level)
    return jnp.concatenate([parts[n ^ 1] for n in range(len(parts))])
