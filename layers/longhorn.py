"""Longhorn: Mamba's block around the recurrence of implicit online learning."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels import longhorn
from . import flops
from .mamba import Mamba, MambaConfig
from .parts import Keys


@dataclass(frozen=True)
class LonghornConfig(MambaConfig):
    """Settings of ``Longhorn``: those of ``Mamba``, with ``dt_rank`` the rank of the map that gives beta."""

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "Longhorn":
        """Builds the mixer."""
        return Longhorn(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters: Mamba's without A."""
        return super().param_count(dim) - self.sizes(dim)[0] * self.state_dim

    def recurrence_flops(self, inner: int) -> float:
        """Operations of one token's recurrence."""
        return flops.longhorn(inner, self.state_dim)


class Longhorn(Mamba):
    """The Longhorn mixer.

    ``x, z = W_in u``; x passes the short filter and SiLU; ``r, k, q = W_x x``, ``beta = sigmoid(W_beta r + b)``,
    ``delta = beta / (1 + beta |k|^2)``; ``h_t = (1 - delta_t (k_t^2)^T) h_{t-1} + delta_t x_t k_t^T``,
    ``o_t = h_t q_t + D x_t``; ``y = W_out (o * silu(z))``.

    Only the mixer: no norm before it, no residual. As in the official code, b starts at 0, D at 1; W_beta as Mamba's
    W_dt.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; steps, decays and the state are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Liu, Wang, Wu, Feng, Stone & Liu (2024), Longhorn, arXiv 2407.14207; github.com/Cranial-XIX/longhorn.
    """

    def __init__(
        self,
        dim: int,
        config: LonghornConfig = LonghornConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(dim, config, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def init_recurrence(self, keys: Keys) -> None:
        """The bias of beta."""
        self.dt_bias = nnx.Param(jnp.zeros(self.inner, jnp.float32))

    def recur(
        self,
        x: Float[Array, "B T D"],
        dt: Float[Array, "B T D"],
        B: Float[Array, "B T N"],
        C: Float[Array, "B T N"],
        state: Float[Array, "B D N"],
        segment_ids: Int[Array, "B T"] | None,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B D N"]]:
        """B is the key, C the query, and dt the map of r that makes beta."""
        beta = jax.nn.sigmoid(dt + self.dt_bias)
        delta = beta / (1 + beta * jnp.sum(B.astype(jnp.float32) ** 2, axis=-1, keepdims=True))
        return longhorn(x, delta, B, C, initial_state=state, segment_ids=segment_ids)
