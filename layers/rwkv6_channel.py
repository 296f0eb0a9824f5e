"""RWKV-6's channel mixing, and RWKV-4's: they read the token before, and so stand in a pattern as mixers."""

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
from .rwkv6 import shifted_share


@dataclass(frozen=True)
class RWKV6ChannelConfig(MixerConfig):
    """Settings of ``RWKV6Channel``.

    Args:
      hidden: hidden width; None: 3.5 times the model width, rounded down to a multiple of 32. RWKV-4's is 4 times.
      steepness: how quickly the initial mixtures fall with depth, a power; RWKV-4's is 1.
    """

    hidden: int | None = None
    steepness: int = 3

    def width(self, dim: int) -> int:
        """The hidden width."""
        return 7 * dim // 64 * 32 if self.hidden is None else self.hidden

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "RWKV6Channel":
        """Builds the mixer."""
        return RWKV6Channel(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        return dim * (2 * self.width(dim) + dim) + 2 * dim

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        return 2 * flops.projection(dim, self.width(dim)) + flops.projection(dim, dim)

    def state_bytes(self, dim: int, T: int) -> int:
        """The last token."""
        return 4 * dim


class RWKV6ChannelCache(NamedTuple):
    """What ``RWKV6Channel`` keeps."""

    last: Float[Array, "B 1 D"]


class RWKV6Channel(Mixer):
    """RWKV-6's channel mixing: ``y = sigmoid(W_r x_r) * (W_v relu(W_k x_k)^2)``.

    ``x_k = x_t + (x_{t-1} - x_t) * m_k``, and ``x_r`` likewise. Only the mixer: no norm before it, no residual. As in
    the official code, the mixtures m start falling over the channels and with depth.

    Args:
      dim: model width.
      config: the settings.
      layer: the layer's number, from 0, for the initial mixtures.
      depth: the number of layers, for the same.
      dtype: what products compute in; the shifts are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Peng et al. (2024), Eagle and Finch, arXiv 2404.05892; github.com/BlinkDL/RWKV-LM.
    """

    def __init__(
        self,
        dim: int,
        config: RWKV6ChannelConfig = RWKV6ChannelConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        draw, hidden = Keys(rngs), config.width(dim)
        mix = shifted_share(dim, (1 - layer / depth) ** config.steepness)
        self.mix_k, self.mix_r = nnx.Param(mix), nnx.Param(mix)
        self.key = dense(draw, "key", dim, hidden, dtype=dtype)
        self.value = dense(draw, "value", hidden, dim, dtype=dtype)
        self.receptance = dense(draw, "receptance", dim, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> RWKV6ChannelCache:
        """A token of zeros."""
        return RWKV6ChannelCache(jnp.zeros((batch, 1, self.mix_k.shape[0]), jnp.float32))

    def prefill(
        self, x: Float[Array, "B T D"], cache: RWKV6ChannelCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], RWKV6ChannelCache]:
        """Mixes the T next tokens, each with the one before."""
        x = x.astype(jnp.float32)
        previous, last = token_shift(x, cache.last, segment_ids)
        d = previous - x
        hidden = jax.nn.relu(self.key(x + d * self.mix_k)) ** 2
        return jax.nn.sigmoid(self.receptance(x + d * self.mix_r)) * self.value(hidden), RWKV6ChannelCache(last)
