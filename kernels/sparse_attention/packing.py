"""Moves padding out of the way: to the left, where no token sees it and no block is broken by it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped


class Packing(NamedTuple):
    """A permutation of the tokens of each row: padding first, then the others in their order."""

    order: Int[Array, "B T"]
    """Which token lies where."""
    place: Int[Array, "B T"]
    """Where each token lies."""

    def pack(self, x: Shaped[Array, "B T ..."]) -> Shaped[Array, "B T ..."]:
        """Padding to the left."""
        return _take(x, self.order, self.place)

    def unpack(self, x: Shaped[Array, "B T ..."]) -> Shaped[Array, "B T ..."]:
        """Back to where it was."""
        return _take(x, self.place, self.order)


def packing(segment_ids: Int[Array, "B T"]) -> Packing:
    """Where the tokens of ``segment_ids`` go; those of a negative id are padding."""
    order = jnp.argsort(segment_ids >= 0, axis=1, stable=True)
    return Packing(order, jnp.argsort(order, axis=1))


@jax.custom_vjp
def _take(x, index, inverse):
    """``x[b, index[b, t]]``; its transpose is a gather too, since ``index`` is a permutation."""
    return jnp.take_along_axis(x, index.reshape(index.shape + (1,) * (x.ndim - 2)), axis=1, mode="clip")


def _forward(x, index, inverse):
    return _take(x, index, inverse), (index, inverse)


def _backward(residuals, dy):
    index, inverse = residuals
    return _take(dy, inverse, index), None, None


_take.defvjp(_forward, _backward)
