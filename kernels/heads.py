"""Grouped heads: value head j reads key head j // (H / Hk)."""

import jax.numpy as jnp
from jaxtyping import Array, Shaped


def repeat_heads(x: Shaped[Array, "B T Hk ..."], H: int) -> Shaped[Array, "B T H ..."]:
    """Repeats the key heads of x so that it has H heads."""
    return x if x.shape[2] == H else jnp.repeat(x, H // x.shape[2], axis=2)
