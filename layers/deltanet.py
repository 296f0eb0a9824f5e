"""DeltaNet: linear attention that replaces what it finds under a key instead of adding to it."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels import delta_rule
from . import flops
from .base import Mixer, MixerConfig
from .parts import Keys, RMSNorm, ShortConv, conv_bytes, conv_params, dense, head_count, l2_norm


@dataclass(frozen=True)
class DeltaNetConfig(MixerConfig):
    """Settings of ``DeltaNet``.

    Args:
      heads: heads; None: as many as fill the model width.
      head_dim: width of a head's keys and values.
      negative_eigenvalues: beta ranges over (0, 2) instead of (0, 1), so that a write can flip the state along its key.
      short_conv: width of the causal filter on q, k and v, before their SiLU; 0: SiLU alone.
    """

    heads: int | None = None
    head_dim: int = 128
    negative_eigenvalues: bool = False
    short_conv: int = 4

    def sizes(self, dim: int) -> tuple[int, int]:
        """The number of heads, and their width together."""
        heads = head_count(self.heads, dim, self.head_dim)
        return heads, heads * self.head_dim

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "DeltaNet":
        """Builds the mixer."""
        return DeltaNet(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        heads, inner = self.sizes(dim)
        return dim * (4 * inner + heads) + conv_params(self.short_conv, 3 * inner) + self.head_dim

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        heads, inner = self.sizes(dim)
        projections = flops.projection(dim, 3 * inner + heads) + flops.projection(inner, dim)
        recurrence = flops.delta_rule(heads, self.head_dim, self.head_dim)
        return projections + flops.short_conv(self.short_conv, 3 * inner) + recurrence

    def state_bytes(self, dim: int, T: int) -> int:
        """The state and the filter's tail."""
        _, inner = self.sizes(dim)
        return 4 * inner * self.head_dim + conv_bytes(self.short_conv, 3 * inner)


class DeltaNetCache(NamedTuple):
    """What ``DeltaNet`` keeps."""

    state: Float[Array, "B H K V"]
    tail: Float[Array, "B tail D"]


class DeltaNet(Mixer):
    """The DeltaNet mixer.

    q, k, v pass the short filter and SiLU; q and k are scaled to length 1; ``beta = sigmoid(W_b x)``;
    ``S_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}^T k_t)^T``, ``o_t = S_t^T q_t / sqrt(K)``; ``y = W_o norm(o)``, the
    norm per head.

    Only the mixer: no norm before it, no residual.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; beta and norms are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Yang, Wang, Zhang, Shen & Kim (2024), arXiv 2406.06484; negative eigenvalues: Grazzi et al. (2024),
    arXiv 2411.12537.
    """

    def __init__(
        self,
        dim: int,
        config: DeltaNetConfig = DeltaNetConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys = Keys(rngs)
        self.config = config
        self.heads, inner = config.sizes(dim)
        self.qkv = dense(keys, "qkv", dim, 3 * inner, dtype=dtype)
        self.conv = ShortConv(keys, "conv", config.short_conv, 3 * inner, activation="silu")
        self.beta = dense(keys, "beta", dim, self.heads, dtype=dtype)
        self.norm = RMSNorm(config.head_dim)
        self.out = dense(keys, "out", inner, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> DeltaNetCache:
        """The zero state."""
        shape = (batch, self.heads, self.config.head_dim, self.config.head_dim)
        return DeltaNetCache(jnp.zeros(shape, jnp.float32), self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: DeltaNetCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], DeltaNetCache]:
        """Runs the T next tokens from the cached state."""
        qkv, tail = self.conv(self.qkv(x), cache.tail, segment_ids)
        q, k, v = rearrange(qkv, "B T (three H K) -> three B T H K", three=3, H=self.heads)
        beta = jax.nn.sigmoid(self.beta(x).astype(jnp.float32)) * (2 if self.config.negative_eigenvalues else 1)
        y, state = delta_rule(l2_norm(q), l2_norm(k), v, beta, initial_state=cache.state, segment_ids=segment_ids)
        return self.out(rearrange(self.norm(y), "B T H V -> B T (H V)")), DeltaNetCache(state, tail)
