"""Based's gated convolution: a short causal filter, multiplied by a second projection."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from . import flops
from .base import Mixer, MixerConfig
from .parts import Keys, ShortConv, conv_bytes, conv_params, dense, projected


@dataclass(frozen=True)
class BaseConvConfig(MixerConfig):
    """Settings of ``BaseConv``.

    Args:
      expand: width of the filtered channels over the model width.
      short_conv: width of the filter, before SiLU; 0: SiLU alone, which mixes no tokens.
    """

    expand: int = 2
    short_conv: int = 3

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "BaseConv":
        """Builds the mixer."""
        return BaseConv(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        width = self.expand * dim
        return 3 * dim * width + 2 * width + dim + conv_params(self.short_conv, width)

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        width = self.expand * dim
        return 3 * flops.projection(dim, width) + flops.short_conv(self.short_conv, width)

    def state_bytes(self, dim: int, T: int) -> int:
        """The filter's tail."""
        return conv_bytes(self.short_conv, self.expand * dim)


class BaseConvCache(NamedTuple):
    """What ``BaseConv`` keeps."""

    tail: Float[Array, "B tail D"]


class BaseConv(Mixer):
    """The gated convolution mixer: ``y = W_o [silu(conv(W_u x + b_u)) * (W_v x + b_v)] + b_o``.

    Only the mixer: no norm before it, no residual.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Arora et al. (2024), Based, arXiv 2402.18668; github.com/HazyResearch/based.
    """

    def __init__(
        self,
        dim: int,
        config: BaseConvConfig = BaseConvConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        draw, width = Keys(rngs), config.expand * dim
        self.uv = dense(draw, "uv", dim, 2 * width, dtype=dtype, bias=True)
        self.conv = ShortConv(draw, "conv", config.short_conv, width, activation="silu")
        self.out = dense(draw, "out", width, dim, dtype=dtype, bias=True)

    def init_cache(self, batch: int, max_len: int) -> BaseConvCache:
        """No inputs yet."""
        return BaseConvCache(self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: BaseConvCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], BaseConvCache]:
        """Filters the T next tokens after those cached."""
        u, v = projected(self.uv, x, 2)
        u, tail = self.conv(u, cache.tail, segment_ids)
        return self.out(u * v), BaseConvCache(tail)
