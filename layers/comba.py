"""Comba: Gated DeltaNet with closed-loop control, a weaker key to erase by and a corrected query."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array

from ..kernels import delta_rule
from .gated_deltanet import GatedDeltaNet, GatedDeltaNetConfig
from .parts import l2_norm


@dataclass(frozen=True)
class CombaConfig(GatedDeltaNetConfig):
    """Settings of ``Comba``: those of ``GatedDeltaNet``, with one step a token, and one more.

    Args:
      correction: what the query correction D starts at; the authors also recommend 0.02 for small models.
    """

    correction: float = 1.0

    def __post_init__(self):
        if self.householders != 1:
            raise ValueError(f"Comba: householders={self.householders}; only GatedDeltaNet has several steps a token")
        if self.key_heads is not None:
            raise ValueError(f"Comba: key_heads={self.key_heads}; only GatedDeltaNet shares the heads of q and k")

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "Comba":
        """Builds the mixer."""
        return Comba(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        return super().param_count(dim) + 2 * self.sizes(dim)[0]


class Comba(GatedDeltaNet):
    """The Comba mixer.

    As ``GatedDeltaNet``, but the erase key is ``p = sigmoid(d) k`` and reads the state before its decay,
    ``S_t = exp(g_t) S_{t-1} + beta_t k_t (v_t - S_{t-1}^T p_t)^T``; the query is ``unit(q - D sigmoid(d) k)``, q and k
    not yet of length 1; and the output gate is a sigmoid. d and D are a scalar a head.

    Only the mixer: no norm before it, no residual. As in the official code, d starts at 1 and D at 1 (``correction``).

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; beta, decays and norms are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Hu et al. (2025), Comba, arXiv 2506.02475; github.com/fla-org/flash-linear-attention.
    """

    def __init__(
        self,
        dim: int,
        config: CombaConfig = CombaConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(dim, config, layer=layer, depth=depth, dtype=dtype, rngs=rngs)
        self.erase = nnx.Param(jnp.ones(self.heads, jnp.float32))
        self.correction = nnx.Param(jnp.full(self.heads, config.correction, jnp.float32))

    def recur(self, q: Array, k: Array, v: Array, beta: Array, g: Array, **past) -> tuple[Array, Array]:
        """The recurrence of the filtered q, k and v."""
        erase = jax.nn.sigmoid(self.erase[...])[:, None]
        q = l2_norm(q - self.correction[...][:, None] * erase * k)
        k = l2_norm(k)
        return delta_rule(q, k, v, beta, g, erase_key=erase * k, read="undecayed", **past)

    def activate(self, gate: Array) -> Array:
        """The output gate."""
        return jax.nn.sigmoid(gate)
