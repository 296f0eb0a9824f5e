"""DeltaProduct: several steps of the delta rule a token, whose transition is then a product of Householder matrices."""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array

from .gated_deltanet import GatedDeltaNet, GatedDeltaNetConfig


@dataclass(frozen=True)
class DeltaProductConfig(GatedDeltaNetConfig):
    """Settings of ``DeltaProduct``: those of ``GatedDeltaNet``, with two steps a token and negative eigenvalues."""

    negative_eigenvalues: bool = True
    householders: int = 2

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "DeltaProduct":
        """Builds the mixer."""
        return DeltaProduct(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)


class DeltaProduct(GatedDeltaNet):
    """The Gated DeltaProduct mixer: ``GatedDeltaNet`` with ``householders`` steps a token.

    After its decay and before it is read, the state goes through ``S <- S + beta_i k_i (v_i - S^T k_i)^T`` for the n
    keys, values and betas of the token. Two reflections, with betas of up to 2, turn the state within a plane; n of
    them permute n + 1 things.

    Only the mixer: no norm before it, no residual. It starts as ``GatedDeltaNet`` does, also in the official code.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; beta, decays and norms are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Siems, Carstensen, Zela, Hutter, Pontil & Grazzi (2025), DeltaProduct, arXiv 2502.10297;
    github.com/fla-org/flash-linear-attention.
    """

    def __init__(
        self,
        dim: int,
        config: DeltaProductConfig = DeltaProductConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(dim, config, layer=layer, depth=depth, dtype=dtype, rngs=rngs)
