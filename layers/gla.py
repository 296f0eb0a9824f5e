"""Gated linear attention: a state whose every key channel decays by its own data-dependent gate."""

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
class GLAConfig(MixerConfig):
    """Settings of ``GLA``.

    Args:
      heads: heads; None: as many as make the values fill the model width. (The paper has 4 at every size.)
      head_dim: width of a head's keys (K).
      expand_v: width of a head's values over that of its keys.
      gate_rank: rank of the map from the input to the gates.
      gate_normalizer: the gates' logarithms are divided by this.
      short_conv: width of a causal filter on q, k and v, followed by SiLU; 0: neither.
    """

    heads: int | None = None
    head_dim: int = 64
    expand_v: int = 2
    gate_rank: int = 16
    gate_normalizer: float = 16.0
    short_conv: int = 0

    def sizes(self, dim: int) -> tuple[int, int, int]:
        """The number of heads, and the widths of the keys and of the values of all heads."""
        heads = head_count(self.heads, dim, self.head_dim * self.expand_v)
        return heads, heads * self.head_dim, heads * self.head_dim * self.expand_v

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "GLA":
        """Builds the mixer."""
        return GLA(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        heads, keys, values = self.sizes(dim)
        gate = dim * self.gate_rank + self.gate_rank * keys + keys
        conv = conv_params(self.short_conv, 2 * keys + values)
        return dim * (2 * keys + 3 * values) + gate + conv + values // heads

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        heads, keys, values = self.sizes(dim)
        projections = flops.projection(dim, 2 * keys + 2 * values) + flops.projection(values, dim)
        gate = flops.projection(dim, self.gate_rank) + flops.projection(self.gate_rank, keys)
        conv = flops.short_conv(self.short_conv, 2 * keys + values)
        return projections + gate + conv + flops.gla(heads, keys // heads, values // heads)

    def state_bytes(self, dim: int, T: int) -> int:
        """The state and the filter's tail."""
        heads, keys, values = self.sizes(dim)
        return 4 * keys * (values // heads) + conv_bytes(self.short_conv, 2 * keys + values)


class GLACache(NamedTuple):
    """What ``GLA`` keeps."""

    state: Float[Array, "B H K V"]
    tail: Float[Array, "B tail D"]


class GLA(Mixer):
    """The gated linear attention mixer.

    ``g_t = log sigmoid(W_2 W_1 x_t + b) / 16``, ``S_t = Diag(exp g_t) S_{t-1} + k_t v_t^T``,
    ``o_t = S_t^T q_t / sqrt(K)``; ``y = W_o [norm(o) * silu(W_g x)]``, the norm per head.

    Only the mixer: no norm before it, no residual.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; gates and the norm are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Yang, Wang, Shen, Panda & Kim (2023), arXiv 2312.06635; github.com/fla-org/flash-linear-attention.
    """

    def __init__(
        self,
        dim: int,
        config: GLAConfig = GLAConfig(),
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
        self.decay_in = dense(draw, "decay_in", dim, config.gate_rank, dtype=dtype)
        self.decay_out = dense(draw, "decay_out", config.gate_rank, self.keys, dtype=dtype, bias=True)
        self.gate = dense(draw, "gate", dim, self.values, dtype=dtype)
        self.norm = RMSNorm(self.values // self.heads)
        self.out = dense(draw, "out", self.values, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> GLACache:
        """The zero state."""
        shape = (batch, self.heads, self.keys // self.heads, self.values // self.heads)
        return GLACache(jnp.zeros(shape, jnp.float32), self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: GLACache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], GLACache]:
        """Runs the T next tokens from the cached state."""
        qkv, tail = self.conv(self.qkv(x), cache.tail, segment_ids)
        q, k, v = jnp.split(qkv, [self.keys, 2 * self.keys], axis=-1)
        gate, decay = self.gate(x), self.decay_out(self.decay_in(x))
        q, k, v, gate, decay = (rearrange(z, "B T (H K) -> B T H K", H=self.heads) for z in (q, k, v, gate, decay))
        g = jax.nn.log_sigmoid(decay.astype(jnp.float32)) / self.config.gate_normalizer
        y, state = gla(q, k, v, g, initial_state=cache.state, segment_ids=segment_ids)
        y = self.norm(y.astype(jnp.float32)) * jax.nn.silu(gate.astype(jnp.float32))
        return self.out(rearrange(y, "B T H V -> B T (H V)")), GLACache(state, tail)
