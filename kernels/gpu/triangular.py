"""The inverse of a unit lower triangular matrix inside a GPU kernel."""

import jax
import jax.numpy as jnp
from jax import lax

from .mosaic import TILE, indices, product, put


def inverse(A: jax.Array, left, right) -> jax.Array:
    """``(I + A)^-1`` of a strictly lower triangular tile in registers; ``left`` and ``right`` are tiles to work in.

    The recursive 2 x 2 block inverse of ``triangular.inverse``: the inverse of [[P, 0], [L, Q]] is
    [[P^-1, 0], [-Q^-1 L P^-1, Q^-1]]. All blocks of a level are one product of masked matrices.
    """
    r, c = indices()
    apart = r ^ c  # its highest bit says at which level a row and a column are in different halves of one block
    X = jnp.where(apart == 0, 1.0, jnp.where(apart == 1, -A, 0.0))

    def level(n, X):
        put(left, X)
        put(right, jnp.where(apart >> n == 1, A, 0.0))
        across = product(left, right)
        put(right, X)
        put(left, across)
        return X - product(left, right)

    return lax.fori_loop(1, TILE.bit_length() - 1, level, X)
