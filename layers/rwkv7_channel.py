"""RWKV-7's channel mixing: a squared-ReLU perceptron that also reads the token before."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from . import flops
from .base import Mixer, MixerConfig
from .parts import Keys, dense, token_shift


@dataclass(frozen=True)
class RWKV7ChannelConfig(MixerConfig):
    """Settings of ``RWKV7Channel``.

    Args:
      hidden: hidden width; None: 4 times the model width.
    """

    hidden: int | None = None

    def width(self, dim: int) -> int:
        """The hidden width."""
        return 4 * dim if self.hidden is None else self.hidden

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "RWKV7Channel":
        """Builds the mixer."""
        return RWKV7Channel(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        return 2 * dim * self.width(dim) + dim

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        return 2 * flops.projection(dim, self.width(dim))

    def state_bytes(self, dim: int, T: int) -> int:
        """The last token."""
        return 4 * dim


class RWKV7ChannelCache(NamedTuple):
    """What ``RWKV7Channel`` keeps."""

    last: Float[Array, "B 1 D"]


class RWKV7Channel(Mixer):
    """RWKV-7's channel mixing: ``y = W_v relu(W_k (x_t + (x_{t-1} - x_t) * m))^2``.

    Only the mixer: no norm before it, no residual. As in the official code, the mixture m starts falling over the
    channels and with depth.

    Args:
      dim: model width.
      config: the settings.
      layer: the layer's number, from 0, for the initial mixture.
      depth: the number of layers, for the same.
      dtype: what products compute in; the shift is float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Peng et al. (2025), RWKV-7 "Goose", arXiv 2503.14456; github.com/BlinkDL/RWKV-LM.
    """

    def __init__(
        self,
        dim: int,
        config: RWKV7ChannelConfig = RWKV7ChannelConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        draw, hidden = Keys(rngs), config.width(dim)
        self.mix = nnx.Param(1 - (jnp.arange(dim) / dim) ** ((1 - layer / depth) ** 4))
        self.key = dense(draw, "key", dim, hidden, dtype=dtype)
        self.value = dense(draw, "value", hidden, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> RWKV7ChannelCache:
        """A token of zeros."""
        return RWKV7ChannelCache(jnp.zeros((batch, 1, self.mix.shape[0]), jnp.float32))

    def prefill(
        self, x: Float[Array, "B T D"], cache: RWKV7ChannelCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], RWKV7ChannelCache]:
        """Mixes the T next tokens, each with the one before."""
        x = x.astype(jnp.float32)
        previous, last = token_shift(x, cache.last, segment_ids)
        return self.value(jax.nn.relu(self.key(x + (previous - x) * self.mix)) ** 2), RWKV7ChannelCache(last)
