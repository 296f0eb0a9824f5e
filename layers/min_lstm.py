"""minLSTM: an LSTM whose gates see the input only and share one unit of memory, so that it is a linear scan."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import log_sigmoid
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from . import flops
from .min_gru import MinGRU, MinGRUConfig, positive
from .parts import Keys, dense


@dataclass(frozen=True)
class MinLSTMConfig(MinGRUConfig):
    """Settings of ``MinLSTM``: see ``MinGRUConfig``."""

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "MinLSTM":
        """Builds the mixer."""
        return MinLSTM(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters: a gate more than minGRU."""
        return super().param_count(dim) + dim * self.width(dim)

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        return super().flops_per_token(dim, T) + flops.projection(dim, self.width(dim))


class MinLSTM(MinGRU):
    """The minLSTM mixer, with a projection back to the model width.

    ``f_t = sigmoid(W_f x_t)``, ``i_t = sigmoid(W_i x_t)``, ``c_t = g(W_h x_t)`` with ``g(u) = u + 1/2`` where u >= 0,
    else ``sigmoid(u)``; ``h_t = (f_t h_{t-1} + i_t c_t) / (f_t + i_t)``; ``y = W_o h``.

    Only the mixer: no norm before it, no residual. The paper keeps h positive by g to work in log space; the scan here
    needs no logarithm, g stays.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; gates and the scan are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Feng, Tung, Ahmed, Bengio & Hajimirsadeghi (2024), Were RNNs All We Needed?, arXiv 2410.01201.
    """

    def __init__(
        self,
        dim: int,
        config: MinLSTMConfig = MinLSTMConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(dim, config, dtype=dtype, rngs=rngs)
        self.forget = dense(Keys(rngs), "forget", dim, self.width, dtype=dtype)

    def terms(self, x: Float[Array, "B T C"]) -> tuple[Float[Array, "B T D"], Float[Array, "B T D"]]:
        """What is kept of the state, and what is added to it."""
        f, i = self.forget(x).astype(jnp.float32), self.update(x).astype(jnp.float32)
        ratio = log_sigmoid(f) - log_sigmoid(i)  # f / (f + i) is its sigmoid
        return jax.nn.sigmoid(ratio), jax.nn.sigmoid(-ratio) * positive(self.candidate(x).astype(jnp.float32))
