"""The inverse of unit lower triangular matrices inside a TPU kernel."""

import jax.numpy as jnp
from jax import lax

from .mosaic import dot


def inverse(A: list, dtype) -> list:
    """``(I + A)^-1`` of strictly lower triangular float32 matrices ``[C, C]``, in products of ``dtype``.

    The recursive 2 x 2 block inverse of ``triangular.inverse``. All blocks of a level are one product of masked
    matrices, and each step is taken for all matrices before the next, so that independent products follow each other.
    """
    C = A[0].shape[0]
    row, col = (lax.broadcasted_iota(jnp.int32, (C, C), axis) for axis in (0, 1))
    apart = row ^ col  # its highest bit says at which level row and col are in different halves of one block
    X = [jnp.where(apart == 0, 1.0, jnp.where(apart == 1, -a, 0.0)) for a in A]
    for level in range(1, C.bit_length() - 1):
        meet = apart >> level == 1
        L = [jnp.where(meet, a, 0.0).astype(dtype) for a in A]
        rounded = [x.astype(dtype) for x in X]
        QL = [dot(x, l).astype(dtype) for x, l in zip(rounded, L, strict=True)]
        X = [x - dot(y, r) for x, y, r in zip(X, QL, rounded, strict=True)]
    if dtype == jnp.float32:  # one step of refinement, as in ``triangular.inverse``
        residual = [jnp.where(apart == 0, 1.0, 0.0) - x - dot(a, x) for a, x in zip(A, X, strict=True)]
        X = [x + dot(x, r) for x, r in zip(X, residual, strict=True)]
    return X
