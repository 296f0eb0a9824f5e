"""MLGRU: the token mixer of MatMul-free LM, a GRU without a recurrent matrix whose output is gated."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from . import flops
from .base import Constant
from .min_gru import MinGRU, MinGRUConfig
from .parts import Keys, RMSNorm, dense


@dataclass(frozen=True)
class MLGRUConfig(MinGRUConfig):
    """Settings of ``MLGRU``.

    Args:
      expand: width of the state over the model width.
      short_conv: width of a causal filter on the input; 0: none.
      lower_bounds: the forget gates of layer l of L are at least l / L; otherwise 0.
    """

    expand: float = 1.0
    lower_bounds: bool = True

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "MLGRU":
        """Builds the mixer."""
        return MLGRU(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters: minGRU's, the output gate's and its norm's."""
        return super().param_count(dim) + (dim + 1) * self.width(dim)

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        return super().flops_per_token(dim, T) + flops.projection(dim, self.width(dim))


class MLGRU(MinGRU):
    """The MLGRU mixer.

    ``f_t = b + (1 - b) sigmoid(-W_z x_t)``, ``c_t = silu(W_c x_t)``; ``h_t = f_t h_{t-1} + (1 - f_t) c_t``;
    ``y = W_o [norm(W_g x) * silu(h)]``, with an RMS norm. The lower bound b is l / L in layer l of L, from 0.

    Only the mixer: no norm before it, no residual. Its projections are ternary where the model's are
    (``LMConfig.projection``), as in the paper. As in the official code, the gate is normalised (in the paper it is a
    sigmoid), there are no biases, and the forget gates have lower bounds; there one learnt matrix sets these for all
    layers, as a cumulative softmax over them, which starts at l / L; here they stay there. It is a real HGRN with
    another output gate, or a minGRU with one; its forget gate is written as one minus minGRU's.

    Args:
      dim: model width.
      config: the settings.
      layer: which layer it is, for the lower bound.
      depth: the number of layers, likewise.
      dtype: what products compute in; gates, scan and norm are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Zhu et al. (2024), Scalable MatMul-free Language Modeling, arXiv 2406.02528;
    github.com/ridgerchu/matmulfreellm.
    """

    def __init__(
        self,
        dim: int,
        config: MLGRUConfig = MLGRUConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(dim, config, dtype=dtype, rngs=rngs)
        self.bound = Constant(jnp.asarray(layer if config.lower_bounds else 0, jnp.float32) / depth)
        self.gate = dense(Keys(rngs), "gate", dim, self.width, dtype=dtype)
        self.norm = RMSNorm(self.width, eps=1e-6)

    def terms(self, x: Float[Array, "B T C"]) -> tuple[Float[Array, "B T D"], Float[Array, "B T D"]]:
        """What is kept of the state, and what is added to it."""
        z, c = self.update(x).astype(jnp.float32), self.candidate(x).astype(jnp.float32)
        bound = self.bound[...]
        return bound + (1 - bound) * jax.nn.sigmoid(-z), (1 - bound) * jax.nn.sigmoid(z) * jax.nn.silu(c)

    def read(self, h: Float[Array, "B T D"], x: Float[Array, "B T C"]) -> Float[Array, "B T D"]:
        """The states through the output gate."""
        return self.norm(self.gate(x).astype(jnp.float32)) * jax.nn.silu(h)
