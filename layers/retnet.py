"""RetNet: linear attention with rotary positions, whose every head forgets at a fixed rate of its own."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels import gla
from . import flops
from .base import Mixer, MixerConfig
from .kv_cache import advance, place
from .parts import Keys, RMSNorm, ShortConv, conv_bytes, conv_params, dense, head_count, rope


@dataclass(frozen=True)
class RetNetConfig(MixerConfig):
    """Settings of ``RetNet``.

    Args:
      heads: heads; None: as many as make the keys fill the model width.
      head_dim: width of a head's keys (K), even.
      expand_v: width of a head's values over that of its keys.
      rope_base: the rotary positions' base.
      short_conv: width of a causal filter on q, k and v, followed by SiLU; 0: neither.
    """

    heads: int | None = None
    head_dim: int = 256
    expand_v: int = 2
    rope_base: float = 10_000.0
    short_conv: int = 0

    def sizes(self, dim: int) -> tuple[int, int, int]:
        """The number of heads, and the widths of the keys and of the values of all heads."""
        heads = head_count(self.heads, dim, self.head_dim)
        return heads, heads * self.head_dim, heads * self.head_dim * self.expand_v

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "RetNet":
        """Builds the mixer."""
        return RetNet(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        heads, keys, values = self.sizes(dim)
        return dim * (2 * keys + 3 * values) + conv_params(self.short_conv, 2 * keys + values) + values // heads

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        heads, keys, values = self.sizes(dim)
        projections = flops.projection(dim, 2 * keys + 2 * values) + flops.projection(values, dim)
        conv = flops.short_conv(self.short_conv, 2 * keys + values)
        return projections + conv + flops.gla(heads, keys // heads, values // heads)

    def state_bytes(self, dim: int, T: int) -> int:
        """The state, the number of tokens, and the filter's tail."""
        heads, keys, values = self.sizes(dim)
        return 4 * keys * (values // heads) + 4 + conv_bytes(self.short_conv, 2 * keys + values)


class RetNetCache(NamedTuple):
    """What ``RetNet`` keeps."""

    state: Float[Array, "B H K V"]
    length: Int[Array, " B"]
    tail: Float[Array, "B tail D"]


class RetNet(Mixer):
    """The multi-scale retention mixer.

    q and k turn by rotary positions; ``S_t = (1 - 2^(-5-h)) S_{t-1} + k_t v_t^T`` in head h, counted from 0,
    ``o_t = S_t^T q_t / sqrt(K)``; ``y = W_o [norm(o) * silu(W_g x)]``, the norm per head.

    Only the mixer: no norm before it, no residual. Each document counts its positions from 0. The paper divides the
    scores by sums of the decays too; the norm undoes that.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; decays and the norm are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Sun et al. (2023), Retentive Network, arXiv 2307.08621; github.com/microsoft/torchscale.
    """

    def __init__(
        self,
        dim: int,
        config: RetNetConfig = RetNetConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        draw = Keys(rngs)
        self.config = config
        self.heads, self.keys, self.values = config.sizes(dim)
        channels = 2 * self.keys + self.values
        self.qkv = dense(draw, "qkv", dim, channels, dtype=dtype)
        activation = "silu" if config.short_conv else None
        self.conv = ShortConv(draw, "conv", config.short_conv, channels, activation=activation)
        self.gate = dense(draw, "gate", dim, self.values, dtype=dtype)
        self.norm = RMSNorm(self.values // self.heads)
        self.out = dense(draw, "out", self.values, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> RetNetCache:
        """The zero state."""
        shape = (batch, self.heads, self.keys // self.heads, self.values // self.heads)
        return RetNetCache(jnp.zeros(shape, jnp.float32), jnp.zeros(batch, jnp.int32), self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: RetNetCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], RetNetCache]:
        """Runs the T next tokens from the cached state."""
        qkv, tail = self.conv(self.qkv(x), cache.tail, segment_ids)
        q, k, v = jnp.split(qkv, [self.keys, 2 * self.keys], axis=-1)
        q, k, v, gate = (rearrange(z, "B T (H K) -> B T H K", H=self.heads) for z in (q, k, v, self.gate(x)))
        new = place(x.shape[:2], cache.length, segment_ids)
        q, k = rope(q, new.position, self.config.rope_base), rope(k, new.position, self.config.rope_base)
        g = jnp.asarray(np.log1p(-np.exp2(-5.0 - np.arange(self.heads))), jnp.float32)
        y, state = gla(q, k, v, g, initial_state=cache.state, segment_ids=segment_ids)
        y = self.norm(y.astype(jnp.float32)) * jax.nn.silu(gate.astype(jnp.float32))
        return self.out(rearrange(y, "B T H V -> B T (H V)")), RetNetCache(state, advance(cache.length, new), tail)
