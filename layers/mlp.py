"""Channel mixers: maps applied to each token alone."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from . import flops
from .base import ChannelMixerConfig
from .parts import Keys, dense, projected


@dataclass(frozen=True)
class SwiGLUConfig(ChannelMixerConfig):
    """Settings of ``SwiGLU``.

    Args:
      hidden: hidden width; None: 8/3 of the model width, rounded up to a multiple of 8.
    """

    hidden: int | None = None

    def width(self, dim: int) -> int:
        """The hidden width."""
        return -(-8 * dim // 24) * 8 if self.hidden is None else self.hidden

    def build(self, dim: int, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> "SwiGLU":
        """Builds the channel mixer."""
        return SwiGLU(dim, self, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        return 3 * dim * self.width(dim)

    def flops_per_token(self, dim: int) -> float:
        """Forward operations of one token."""
        return 3 * flops.projection(dim, self.width(dim))


class SwiGLU(nnx.Module):
    """The SwiGLU channel mixer: ``y = W_down (silu(W_gate x) * W_up x)``.

    Args:
      dim: model width.
      config: the settings.
      dtype: what it computes in.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Shazeer (2020), GLU Variants Improve Transformer, arXiv 2002.05202.
    """

    def __init__(
        self, dim: int, config: SwiGLUConfig = SwiGLUConfig(), *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ):
        keys, hidden = Keys(rngs), config.width(dim)
        self.up = dense(keys, "up", dim, 2 * hidden, dtype=dtype)
        self.down = dense(keys, "down", hidden, dim, dtype=dtype)

    def __call__(self, x: Float[Array, "*axes D"]) -> Float[Array, "*axes D"]:
        """Maps each token."""
        gate, value = projected(self.up, x, 2)
        return self.down(jax.nn.silu(gate) * value)


@dataclass(frozen=True)
class GeluMLPConfig(ChannelMixerConfig):
    """Settings of ``GeluMLP``.

    Args:
      hidden: hidden width; None: 4 times the model width (GPT-2), or 3 times if gated (Griffin).
      gated: multiply by a second projection, as Griffin does.
      bias: biases on all projections, as GPT-2 and Griffin have.
      exact: GELU itself, as Zamba has; otherwise its tanh form, as in GPT-2's and Griffin's code.
    """

    hidden: int | None = None
    gated: bool = False
    bias: bool = False
    exact: bool = False

    def width(self, dim: int) -> int:
        """The hidden width."""
        return (3 if self.gated else 4) * dim if self.hidden is None else self.hidden

    def build(self, dim: int, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> "GeluMLP":
        """Builds the channel mixer."""
        return GeluMLP(dim, self, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        hidden, ways = self.width(dim), 1 + self.gated
        return (ways + 1) * dim * hidden + (ways * hidden + dim if self.bias else 0)

    def flops_per_token(self, dim: int) -> float:
        """Forward operations of one token."""
        return (2 + self.gated) * flops.projection(dim, self.width(dim))


class GeluMLP(nnx.Module):
    """The GELU channel mixer: ``y = W_down gelu(W_up x)``, or gated, ``y = W_down (gelu(W_gate x) * W_up x)``.

    Args:
      dim: model width.
      config: the settings.
      dtype: what it computes in.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Hendrycks & Gimpel (2016), arXiv 1606.08415; gated: Shazeer (2020), arXiv 2002.05202, and De et al. (2024),
    Griffin, arXiv 2402.19427.
    """

    def __init__(
        self, dim: int, config: GeluMLPConfig = GeluMLPConfig(), *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ):
        keys, hidden = Keys(rngs), config.width(dim)
        self.gated, self.tanh = config.gated, not config.exact
        self.up = dense(keys, "up", dim, (1 + config.gated) * hidden, dtype=dtype, bias=config.bias)
        self.down = dense(keys, "down", hidden, dim, dtype=dtype, bias=config.bias)

    def __call__(self, x: Float[Array, "*axes D"]) -> Float[Array, "*axes D"]:
        """Maps each token."""
        if not self.gated:
            return self.down(jax.nn.gelu(self.up(x), approximate=self.tanh))
        gate, value = projected(self.up, x, 2)
        return self.down(jax.nn.gelu(gate, approximate=self.tanh) * value)
