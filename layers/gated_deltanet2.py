"""Gated DeltaNet-2: Kimi Delta Attention that erases and writes by gates of their own, one for each channel."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from .kda import KDA, KDAConfig


@dataclass(frozen=True)
class GatedDeltaNet2Config(KDAConfig):
    """Settings of ``GatedDeltaNet2``: those of ``KDA``; negative eigenvalues widen the erase gate alone."""

    def beta_width(self, dim: int) -> int:
        """A gate of erasing for each key channel, one of writing for each value channel."""
        _, keys, values = self.sizes(dim)
        return keys + values

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "GatedDeltaNet2":
        """Builds the mixer."""
        return GatedDeltaNet2(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)


class GatedDeltaNet2(KDA):
    """The Gated DeltaNet-2 mixer.

    As ``KDA``, but for ``S_t = S' + k_t (w_t * v_t - S'^T (e_t * k_t))^T``, where the erase gate e and the write gate w
    are ``sigmoid(W_b x)`` for each key channel and each value channel.

    Only the mixer: no norm before it, no residual. Initialisation is that of ``KDA``, as in the official code.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; gates, decays and norms are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Hatamizadeh, Choi & Kautz (2026), Gated DeltaNet-2, arXiv 2605.22791; github.com/NVlabs/GatedDeltaNet-2, as
    in github.com/fla-org/flash-linear-attention.
    """

    def __init__(
        self,
        dim: int,
        config: GatedDeltaNet2Config = GatedDeltaNet2Config(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(dim, config, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def betas(self, x: Float[Array, "B T D"]) -> tuple[Array, Array]:
        """The erase and the write gates."""
        gates = jax.nn.sigmoid(self.beta(x).astype(jnp.float32))
        erase, write = jnp.split(gates, [self.keys], axis=-1)
        erase, write = (rearrange(z, "B T (H K) -> B T H K", H=self.heads) for z in (erase, write))
        return erase * (2 if self.config.negative_eigenvalues else 1), write
