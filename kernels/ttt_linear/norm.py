"""Layer normalisation, and the gradient of half its squared error, which TTT-Linear's map descends."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

EPS = 1e-6


def normed(z: Float[Array, "... K"]) -> tuple[Float[Array, "... K"], Float[Array, "... 1"]]:
    """z with mean 0 and variance 1, and one over its standard deviation."""
    centred = z - z.mean(-1, keepdims=True)
    rate = lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + EPS)
    return centred * rate, rate


def layer_norm(z: Float[Array, "... K"], scale: Float[Array, "... K"], bias: Float[Array, "... K"]):
    """``LN(z)``."""
    return normed(z)[0] * scale + bias


def descent(z: Float[Array, "... K"], target: Float[Array, "... K"], scale, bias) -> Float[Array, "... K"]:
    """The gradient of ``||LN(z) - target||^2 / 2`` with respect to z."""
    unit, rate = normed(z)
    d = (unit * scale + bias - target) * scale
    return rate * (d - d.mean(-1, keepdims=True) - unit * jnp.mean(d * unit, -1, keepdims=True))
