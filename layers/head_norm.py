"""Layer norm within each head: the "group norm" of xLSTM and RetNet."""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float


class HeadNorm(nnx.Module):
    """``(x - mean) / sqrt(variance + eps) * scale``, over the channels of each head, in float32.

    Source: Wu & He (2018), Group Normalization, arXiv 1803.08494.
    """

    def __init__(self, width: int, *, eps: float = 1e-5):
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))
        self.eps = eps

    def __call__(self, x: Float[Array, "B T H V"]) -> Float[Array, "B T D"]:
        """Normalises each head and lines the heads up; returns float32."""
        x = x.astype(jnp.float32)
        x = x - jnp.mean(x, -1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + self.eps)
        return rearrange(x, "B T H V -> B T (H V)") * self.scale
