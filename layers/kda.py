"""Kimi Delta Attention: the delta rule on a state whose every key channel decays by its own gate."""

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
from .parts import (
    Keys,
    RMSNorm,
    ShortConv,
    conv_bytes,
    conv_params,
    dense,
    head_count,
    inverse_softplus_steps,
    l2_norm,
    log_uniform_decays,
)


@dataclass(frozen=True)
class KDAConfig(MixerConfig):
    """Settings of ``KDA``.

    Args:
      heads: heads; None: as many as make the keys fill the model width.
      head_dim: width of a head's keys (K), and the rank of the maps to the decays and to the output gate.
      expand_v: width of a head's values over that of its keys.
      negative_eigenvalues: beta ranges over (0, 2) instead of (0, 1), so that a write can flip the state along its key.
      short_conv: width of the causal filter on q, k and v, before their SiLU; 0: SiLU alone.
    """

    heads: int | None = None
    head_dim: int = 128
    expand_v: int = 1
    negative_eigenvalues: bool = False
    short_conv: int = 4

    def sizes(self, dim: int) -> tuple[int, int, int]:
        """The number of heads, and the widths of the keys and of the values of all heads."""
        heads = head_count(self.heads, dim, self.head_dim)
        return heads, heads * self.head_dim, heads * self.head_dim * self.expand_v

    def beta_width(self, dim: int) -> int:
        """How many gates of erasing and writing a token has."""
        return self.sizes(dim)[0]

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "KDA":
        """Builds the mixer."""
        return KDA(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        heads, keys, values = self.sizes(dim)
        rank = values // heads
        projections = dim * (2 * keys + 2 * values + self.beta_width(dim) + 2 * rank) + rank * (keys + values)
        conv = conv_params(self.short_conv, 2 * keys + values)
        return projections + conv + heads + keys + values + rank  # A_log, dt_bias, the gate's bias, the norm

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        heads, keys, values = self.sizes(dim)
        rank = values // heads
        projections = flops.projection(dim, 2 * keys + values + self.beta_width(dim) + 2 * rank)
        projections += flops.projection(rank, keys + values) + flops.projection(values, dim)
        conv = flops.short_conv(self.short_conv, 2 * keys + values)
        return projections + conv + flops.delta_rule(heads, keys // heads, values // heads)

    def state_bytes(self, dim: int, T: int) -> int:
        """The state and the filter's tail."""
        heads, keys, values = self.sizes(dim)
        return 4 * keys * (values // heads) + conv_bytes(self.short_conv, 2 * keys + values)


class KDACache(NamedTuple):
    """What ``KDA`` keeps."""

    state: Float[Array, "B H K V"]
    tail: Float[Array, "B tail D"]


class KDA(Mixer):
    """The Kimi Delta Attention mixer.

    q, k, v pass the short filter and SiLU; q and k are scaled to length 1; ``beta = sigmoid(W_b x)``,
    ``g = -exp(A_log) softplus(W_2 W_1 x + dt_bias)`` for each head and key channel; ``S' = Diag(exp g_t) S_{t-1}``,
    ``S_t = S' + beta_t k_t (v_t - S'^T k_t)^T``, ``o_t = S_t^T q_t / sqrt(K)``;
    ``y = W_o [norm(o) * sigmoid(W_4 W_3 x + b)]``, the norm per head.

    Only the mixer: no norm before it, no residual. As in the official code, exp(A_log) starts uniform in [1, 16] and
    softplus(dt_bias) log-uniform in [0.001, 0.1].

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; beta, decays and norms are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Kimi Team (2025), Kimi Linear, arXiv 2510.26692; github.com/fla-org/flash-linear-attention.
    """

    def __init__(
        self,
        dim: int,
        config: KDAConfig = KDAConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        draw = Keys(rngs)
        self.config = config
        self.heads, self.keys, self.values = config.sizes(dim)
        channels, rank = 2 * self.keys + self.values, self.values // self.heads
        self.qkv = dense(draw, "qkv", dim, channels, dtype=dtype)
        self.conv = ShortConv(draw, "conv", config.short_conv, channels, activation="silu")
        self.beta = dense(draw, "beta", dim, config.beta_width(dim), dtype=dtype)
        self.decay_in = dense(draw, "decay_in", dim, rank, dtype=dtype)
        self.decay_out = dense(draw, "decay_out", rank, self.keys, dtype=dtype)
        self.A_log = nnx.Param(log_uniform_decays(draw("A_log"), self.heads, low=1.0))
        self.dt_bias = nnx.Param(inverse_softplus_steps(draw("dt_bias"), self.keys))
        self.gate_in = dense(draw, "gate_in", dim, rank, dtype=dtype)
        self.gate_out = dense(draw, "gate_out", rank, self.values, dtype=dtype, bias=True)
        self.norm = RMSNorm(rank)
        self.out = dense(draw, "out", self.values, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> KDACache:
        """The zero state."""
        shape = (batch, self.heads, self.keys // self.heads, self.values // self.heads)
        return KDACache(jnp.zeros(shape, jnp.float32), self.conv.init_tail(batch))

    def betas(self, x: Float[Array, "B T D"]) -> Float[Array, "B T H"] | tuple[Array, Array]:
        """What ``delta_rule`` takes for beta."""
        return jax.nn.sigmoid(self.beta(x).astype(jnp.float32)) * (2 if self.config.negative_eigenvalues else 1)

    def prefill(
        self, x: Float[Array, "B T D"], cache: KDACache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], KDACache]:
        """Runs the T next tokens from the cached state."""
        qkv, tail = self.conv(self.qkv(x), cache.tail, segment_ids)
        q, k, v = jnp.split(qkv, [self.keys, 2 * self.keys], axis=-1)
        gate, dt = self.gate_out(self.gate_in(x)), self.decay_out(self.decay_in(x)).astype(jnp.float32) + self.dt_bias
        q, k, v, gate, dt = (rearrange(z, "B T (H K) -> B T H K", H=self.heads) for z in (q, k, v, gate, dt))
        g = -jnp.exp(self.A_log[...])[:, None] * jax.nn.softplus(dt)
        y, state = delta_rule(
            l2_norm(q), l2_norm(k), v, self.betas(x), g, initial_state=cache.state, segment_ids=segment_ids
        )
        y = self.norm(y.astype(jnp.float32)) * jax.nn.sigmoid(gate.astype(jnp.float32))
        return self.out(rearrange(y, "B T H V -> B T (H V)")), KDACache(state, tail)
