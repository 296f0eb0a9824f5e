"""Unit lower triangular systems: the implicit part of the delta rule inside a chunk."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision
from jaxtyping import Array, Float

BASE = 16
"""Blocks of this many rows are inverted by masks, larger ones from halves."""


def inverse(A: Float[Array, "*n C C"]) -> Float[Array, "*n C C"]:
    """``(I + tril(A, -1))^-1`` by the recursive 2 x 2 block inverse; C is a power of 2.

    The inverse of [[P, 0], [L, Q]] is [[P^-1, 0], [-Q^-1 L P^-1, Q^-1]]. The power series of A, which needs fewer
    products, loses all digits where keys are correlated. One step of refinement, X + X (I - (I + A) X), makes each
    entry exact but for rounding: five times less error with equal keys and beta 1.99.
    """
    C = A.shape[-1]
    b = min(C, BASE)
    i, j = np.arange(b)[:, None], np.arange(b)
    blocks = A.reshape(*A.shape[:-2], C // b, b, C // b, b)
    diagonal = jnp.stack([blocks[..., n, :, n, :] for n in range(C // b)], -3)
    X = jnp.broadcast_to(jnp.eye(b, dtype=A.dtype), diagonal.shape)
    for level in range(b.bit_length() - 1):
        L = jnp.where((i >> (level + 1) == j >> (level + 1)) & (i >> level > j >> level), diagonal, 0)
        X = X - (L if level == 0 else _matmul(_matmul(X, L), X))
    while b < C:
        blocks = A.reshape(*A.shape[:-2], C // (2 * b), 2, b, C // (2 * b), 2, b)
        L = jnp.stack([blocks[..., n, 1, :, n, 0, :] for n in range(C // (2 * b))], -3)
        P, Q = X[..., 0::2, :, :], X[..., 1::2, :, :]
        corner = -_matmul(_matmul(Q, L), P)
        upper = jnp.concatenate([P, jnp.zeros_like(corner)], -1)
        X = jnp.concatenate([upper, jnp.concatenate([corner, Q], -1)], -2)
        b *= 2
    X = X[..., 0, :, :]
    residual = jnp.eye(C, dtype=A.dtype) - X - _matmul(jnp.tril(A, -1), X)
    return X + _matmul(X, residual)


@jax.custom_vjp
def solve(A: Float[Array, "*n C C"], r: Float[Array, "*n C V"]) -> Float[Array, "*n C V"]:
    """x of ``(I + tril(A, -1)) x = r``."""
    return _forward(A, r)[0]


def _forward(A, r):
    X = inverse(A)
    x = _matmul(X, r)
    return x, (X, x)


def _backward(residuals, dx):
    X, x = residuals
    dr = _matmul(X.swapaxes(-1, -2), dx)
    return -jnp.tril(_matmul(dr, x.swapaxes(-1, -2)), -1), dr


solve.defvjp(_forward, _backward)


def _matmul(a, b):
    return jnp.matmul(a, b, precision=Precision.HIGHEST)
