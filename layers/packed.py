"""Trained ternary weights, five to a byte, and a product of additions alone: the reference for kernels and devices."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, Int32, UInt8

from .base import Constant
from .ternary import BitLinear, TernaryProjection, eight_bits, replaced, trits

POWERS = 3 ** np.arange(5)
"""A byte holds five trits, as digits of base 3: 1.6 bits a weight, of which log2 3 = 1.585 are needed."""
DIGITS = (np.arange(3**5)[:, None] // POWERS % 3 - 1).astype(np.int8)
"""The five trits of each byte."""


def pack(t: Int8[Array, "*axes I O"]) -> UInt8[Array, "*axes P O"]:
    """Packs each five successive rows into bytes, ``P = ceil(I / 5)``; the last is filled up with zeros."""
    *axes, inputs, outputs = t.shape
    fives = jnp.pad(t, [(0, 0)] * len(axes) + [(0, -inputs % 5), (0, 0)]).reshape(*axes, -1, 5, outputs)
    return jnp.sum((fives + 1) * POWERS[:, None], axis=-2).astype(jnp.uint8)


def unpack(packed: UInt8[Array, "*axes P O"], inputs: int) -> Int8[Array, "*axes I O"]:
    """The first ``inputs`` rows of what ``pack`` was given."""
    *axes, count, outputs = packed.shape
    fives = jnp.moveaxis(jnp.asarray(DIGITS)[packed], -1, -2)
    return fives.reshape(*axes, 5 * count, outputs)[..., :inputs, :]


def sum_of_selected(q: Int8[Array, "*axes I"], t: Int8[Array, "I O"]) -> Int32[Array, "*axes O"]:
    """``q @ t`` without a multiplication: each output adds the inputs whose trit is 1 and subtracts those of -1."""

    def add(total: Array, row: tuple[Array, Array]) -> tuple[Array, None]:
        x, signs = row
        x = x.astype(jnp.int32)[..., None]
        return total + jnp.where(signs > 0, x, jnp.where(signs < 0, -x, 0)), None

    zero = jnp.zeros((*q.shape[:-1], t.shape[-1]), jnp.int32)
    return jax.lax.scan(add, zero, (jnp.moveaxis(q, -1, 0), t))[0]


class PackedLinear(TernaryProjection):
    """A ``BitLinear`` as it is deployed: packed trits, their scale, and a product of additions of whole numbers.

    ``y = sum_of_selected(q, t) * s * m + bias``, q and s from the normalised input: the bits that training computes.
    The definition of a kernel to come, not a fast one: it adds up one input after another.

    Args:
      linear: the projection, or several stacked on a leading axis.
    """

    def __init__(self, linear: BitLinear):
        t, scale = trits(linear.kernel[...])
        self.inputs = t.shape[-2]
        self.packed, self.scale = Constant(pack(t)), Constant(scale)
        self.norm, self.bias, self.dtype = linear.norm, linear.bias, linear.dtype

    def product(self, x: Float[Array, "*axes I"]) -> Float[Array, "*axes O"]:
        """Additions of whole numbers, then one multiplication a result."""
        q, s = eight_bits(x)
        whole = sum_of_selected(q, unpack(self.packed[...], self.inputs))
        return whole.astype(jnp.float32) * (s * self.scale[...])


def to_packed[M](module: M) -> M:
    """The module with a ``PackedLinear`` in place of every ``BitLinear``: it computes the same, and is not trained."""
    return replaced(module, BitLinear, PackedLinear)
