"""Grouped heads: value head j reads key head j // (H / Hk)."""

import jax.numpy as jnp
from jaxtyping import Array, Shaped


def repeat_heads(x: Shaped[Array, "..."], H: int, axis: int = 2) -> Shaped[Array, "..."]:
    """Repeats the key heads of x, which are on ``axis``, so that it has H heads."""
    return x if x.shape[axis] == H else jnp.repeat(x, H // x.shape[axis], axis=axis)
