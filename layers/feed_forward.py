"""A channel mixer in a block of its own: for trunks in which only some of the mixers are followed by one."""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from .base import ChannelMixerConfig, Mixer, MixerConfig
from .mlp import SwiGLUConfig


@dataclass(frozen=True)
class FeedForwardConfig(MixerConfig):
    """Settings of ``FeedForward``.

    Args:
      mlp: the channel mixer.
    """

    mlp: ChannelMixerConfig = field(default_factory=SwiGLUConfig)

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "FeedForward":
        """Builds the mixer."""
        return FeedForward(dim, self, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        return self.mlp.param_count(dim)

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        return self.mlp.flops_per_token(dim)

    def state_bytes(self, dim: int, T: int) -> int:
        """None."""
        return 0


class FeedForwardCache(NamedTuple):
    """``FeedForward`` keeps nothing."""


class FeedForward(Mixer):
    """A channel mixer as a block of the pattern: it mixes nothing along time.

    Only the mixer: no norm before it, no residual.

    Args:
      dim: model width.
      config: the settings.
      dtype: what it computes in.
      rngs: the key of the parameters.

    Source: Vaswani et al. (2017), Attention Is All You Need, arXiv 1706.03762.
    """

    def __init__(
        self,
        dim: int,
        config: FeedForwardConfig = FeedForwardConfig(),
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.mlp = config.mlp.build(dim, dtype=dtype, rngs=rngs)

    def init_cache(self, batch: int, max_len: int) -> FeedForwardCache:
        """Nothing."""
        return FeedForwardCache()

    def prefill(
        self, x: Float[Array, "B T D"], cache: FeedForwardCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], FeedForwardCache]:
        """Maps each token."""
        return self.mlp(x), cache  # pyright: ignore[reportCallIssue]
