"""The inverse of unit lower triangular matrices inside a TPU kernel."""

import jax.numpy as jnp
from jax import lax

from .mosaic import dot

TILE = 16
"""Rows of a bfloat16 register: blocks of so many rows are moved without a shuffle."""


def inverse(A: list, dtype) -> list:
    """``(I + A)^-1`` of strictly lower triangular float32 matrices ``[C, C]``, in products of ``dtype``.

    The recursive 2 x 2 block inverse of ``triangular.inverse``. All blocks of a level are one product of masked
    matrices, and each step is taken for all matrices before the next, so that independent products follow each other.
    A level changes the right halves of its blocks only: where registers allow it, no other rows are multiplied.
    """
    C = A[0].shape[0]
    row, col = (lax.broadcasted_iota(jnp.int32, (C, C), axis) for axis in (0, 1))
    apart = row ^ col  # its highest bit says at which level row and col are in different halves of one block
    X = [jnp.where(apart == 0, 1.0, jnp.where(apart == 1, -a, 0.0)) for a in A]
    for level in range(1, C.bit_length() - 1):
        b = 1 << level
        meet = apart >> level == 1
        L = [jnp.where(meet, a, 0.0).astype(dtype) for a in A]
        rounded = [x.astype(dtype) for x in X]
        rows = rounded if b < TILE else [_right(x, b) for x in rounded]
        QL = [dot(x, l).astype(dtype) for x, l in zip(rows, L, strict=True)]
        corner = [dot(y, r) for y, r in zip(QL, rounded, strict=True)]
        X = [x - c if b < TILE else _less(x, c, b) for x, c in zip(X, corner, strict=True)]
    if dtype == jnp.float32:  # one step of refinement, as in ``triangular.inverse``
        residual = [jnp.where(apart == 0, 1.0, 0.0) - x - dot(a, x) for a, x in zip(A, X, strict=True)]
        X = [x + dot(x, r) for x, r in zip(X, residual, strict=True)]
    return X


def _right(x, b: int):
    """The rows in right halves of blocks of 2 b."""
    return jnp.concatenate([x[n : n + b] for n in range(b, x.shape[0], 2 * b)])


def _less(x, y, b: int):
    """x, and in the rows of ``_right`` less y."""
    halves = range(0, x.shape[0], 2 * b)
    pairs = [(x[n : n + b], x[n + b : n + 2 * b] - y[n // 2 : n // 2 + b]) for n in halves]
    return jnp.concatenate([part for pair in pairs for part in pair])
