"""Real and complex numbers as the kernels have them: as one or two real arrays."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

Number = tuple[jax.Array, ...]
"""A real array, or the real and the imaginary part."""


def parts(z: jax.Array) -> Number:
    """The real arrays that hold ``z``."""
    return (z.real, z.imag) if jnp.iscomplexobj(z) else (z,)


def whole(z: Sequence[jax.Array]) -> jax.Array:
    """The inverse of ``parts``."""
    return jax.lax.complex(*z) if len(z) == 2 else z[0]


def multiply(a: Number, b: Number) -> Number:
    """The product of two numbers."""
    if len(a) == 1:
        return (a[0] * b[0],)
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def add(a: Number, b: Number) -> Number:
    """The sum of two numbers."""
    return tuple(x + y for x, y in zip(a, b, strict=True))
