"""Gated slot attention: softmax attention over a fixed number of slots that forget and are written to by gates."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels import gla
from . import flops
from .base import Mixer, MixerConfig
from .parts import Keys, RMSNorm, ShortConv, conv_bytes, conv_params, dense, head_count


@dataclass(frozen=True)
class GSAConfig(MixerConfig):
    """Settings of ``GSA``.

    Args:
      heads: heads; None: as many as fill the model width. (The paper has 4 at every size.)
      head_dim: width of a head's keys and values.
      slots: slots of a head.
      gate_normalizer: the gates' logarithms are divided by this.
      short_conv: width of a causal filter on q, k and v, before their SiLU; 0: SiLU alone.
    """

    heads: int | None = None
    head_dim: int = 128
    slots: int = 64
    gate_normalizer: float = 8.0
    short_conv: int = 0

    def sizes(self, dim: int) -> tuple[int, int]:
        """The number of heads, and the width of all heads."""
        heads = head_count(self.heads, dim, self.head_dim)
        return heads, heads * self.head_dim

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "GSA":
        """Builds the mixer."""
        return GSA(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        heads, width = self.sizes(dim)
        return dim * (4 * width + heads * self.slots) + conv_params(self.short_conv, 3 * width) + width

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        heads, width = self.sizes(dim)
        projections = 4 * flops.projection(dim, width) + flops.projection(dim, heads * self.slots)
        slots = flops.gla(heads, self.head_dim, self.slots) + flops.gla(heads, self.slots, self.head_dim)
        return projections + flops.short_conv(self.short_conv, 3 * width) + slots

    def state_bytes(self, dim: int, T: int) -> int:
        """The slots' keys and values, and the filter's tail."""
        _, width = self.sizes(dim)
        return 8 * width * self.slots + conv_bytes(self.short_conv, 3 * width)


class GSACache(NamedTuple):
    """What ``GSA`` keeps."""

    keys: Float[Array, "B H K M"]
    values: Float[Array, "B H M V"]
    tail: Float[Array, "B tail D"]


class GSA(Mixer):
    """The gated slot attention mixer.

    ``q, k, v = silu(W x)``, and a gate for each slot, ``f = sigmoid(W_f x)^(1/8)``; slot m holds the key
    ``K_m <- f_m K_m + (1 - f_m) k`` and the value ``V_m <- f_m V_m + (1 - f_m) v``; ``o = softmax(q K^T) V`` over the
    slots; ``y = W_o norm(silu(o))``, the norm over all heads together.

    Only the mixer: no norm before it, no residual. It is two gated linear attentions, the first of which decays along
    its values.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; gates, the softmax and the norm are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Zhang et al. (2024), Gated Slot Attention, arXiv 2409.07146; github.com/fla-org/flash-linear-attention.
    """

    def __init__(
        self,
        dim: int,
        config: GSAConfig = GSAConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        draw = Keys(rngs)
        self.config = config
        self.heads, self.width = config.sizes(dim)
        self.qkv = dense(draw, "qkv", dim, 3 * self.width, dtype=dtype)
        self.conv = ShortConv(draw, "conv", config.short_conv, 3 * self.width, activation="silu")
        self.forget = dense(draw, "forget", dim, self.heads * config.slots, dtype=dtype)
        self.norm = RMSNorm(self.width)
        self.out = dense(draw, "out", self.width, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> GSACache:
        """Empty slots."""
        head_dim, slots = self.config.head_dim, self.config.slots
        keys = jnp.zeros((batch, self.heads, head_dim, slots), jnp.float32)
        return GSACache(keys, keys.swapaxes(2, 3), self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: GSACache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], GSACache]:
        """Runs the T next tokens from the cached slots."""
        qkv, tail = self.conv(self.qkv(x), cache.tail, segment_ids)
        q, k, v = (rearrange(z, "B T (H K) -> B T H K", H=self.heads) for z in jnp.split(qkv, 3, axis=-1))
        forget = rearrange(self.forget(x).astype(jnp.float32), "B T (H M) -> B T H M", H=self.heads)
        g = jax.nn.log_sigmoid(forget) / self.config.gate_normalizer
        write = -jnp.expm1(g)
        scores, keys = gla(q, k, write, gv=g, scale=1.0, initial_state=cache.keys, segment_ids=segment_ids)
        p = jax.nn.softmax(scores, axis=-1)
        y, values = gla(p, write, v, g, scale=1.0, initial_state=cache.values, segment_ids=segment_ids)
        y = self.norm(jax.nn.silu(rearrange(y.astype(jnp.float32), "B T H V -> B T (H V)")))
        return self.out(y), GSACache(keys, values, tail)
