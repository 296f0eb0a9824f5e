"""Gated DeltaNet: the delta rule on a state that also decays."""

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
class GatedDeltaNetConfig(MixerConfig):
    """Settings of ``GatedDeltaNet``.

    Args:
      heads: value heads; None: as many as make the keys fill the model width. (The paper's fill three quarters of it.)
      head_dim: width of a head's keys (K).
      expand_v: width of a head's values over that of its keys.
      negative_eigenvalues: beta ranges over (0, 2) instead of (0, 1), so that a write can flip the state along its key.
      short_conv: width of the causal filter on q, k and v, before their SiLU; 0: SiLU alone.
      key_heads: heads of q and k, a divisor of ``heads``, each shared by as many value heads; None: ``heads``.
      norm_eps: epsilon of the output norm.
    """

    heads: int | None = None
    head_dim: int = 256
    expand_v: int = 2
    negative_eigenvalues: bool = False
    short_conv: int = 4
    key_heads: int | None = None
    norm_eps: float = 1e-5

    def sizes(self, dim: int) -> tuple[int, int, int]:
        """The number of value heads, and the widths of the keys and of the values of all heads."""
        heads = head_count(self.heads, dim, self.head_dim)
        key_heads = self.key_heads or heads
        if heads % key_heads:
            raise ValueError(f"gated_deltanet: heads={heads} must be a multiple of key_heads={key_heads}")
        return heads, key_heads * self.head_dim, heads * self.head_dim * self.expand_v

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "GatedDeltaNet":
        """Builds the mixer."""
        return GatedDeltaNet(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        heads, keys, values = self.sizes(dim)
        conv = conv_params(self.short_conv, 2 * keys + values)
        return dim * (2 * keys + 3 * values + 2 * heads) + conv + 2 * heads + values // heads

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        heads, keys, values = self.sizes(dim)
        projections = flops.projection(dim, 2 * keys + 2 * values + 2 * heads) + flops.projection(values, dim)
        conv = flops.short_conv(self.short_conv, 2 * keys + values)
        return projections + conv + flops.delta_rule(heads, self.head_dim, values // heads)

    def state_bytes(self, dim: int, T: int) -> int:
        """The state and the filter's tail."""
        _, keys, values = self.sizes(dim)
        return 4 * self.head_dim * values + conv_bytes(self.short_conv, 2 * keys + values)


class GatedDeltaNetCache(NamedTuple):
    """What ``GatedDeltaNet`` keeps."""

    state: Float[Array, "B H K V"]
    tail: Float[Array, "B tail D"]


class GatedDeltaNet(Mixer):
    """The Gated DeltaNet mixer.

    q, k, v pass the short filter and SiLU; q and k are scaled to length 1; ``beta = sigmoid(W_b x)``,
    ``g = -exp(A_log) softplus(W_a x + dt_bias)``; ``S' = exp(g_t) S_{t-1}``,
    ``S_t = S' + beta_t k_t (v_t - S'^T k_t)^T``, ``o_t = S_t^T q_t / sqrt(K)``;
    ``y = W_o [norm(o) * silu(W_g x)]``, the norm per head.

    Only the mixer: no norm before it, no residual. As in the official code, exp(A_log) starts uniform in (0, 16] and
    softplus(dt_bias) log-uniform in [0.001, 0.1].

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; beta, decays and norms are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Yang, Kautz & Hatamizadeh (2024), Gated Delta Networks, arXiv 2412.06464; github.com/NVlabs/GatedDeltaNet.
    """

    def __init__(
        self,
        dim: int,
        config: GatedDeltaNetConfig = GatedDeltaNetConfig(),
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
        self.conv = ShortConv(draw, "conv", config.short_conv, channels, activation="silu")
        self.beta = dense(draw, "beta", dim, self.heads, dtype=dtype)
        self.decay = dense(draw, "decay", dim, self.heads, dtype=dtype)
        self.A_log = nnx.Param(log_uniform_decays(draw("A_log"), self.heads, low=1e-3))
        self.dt_bias = nnx.Param(inverse_softplus_steps(draw("dt_bias"), self.heads))
        self.gate = dense(draw, "gate", dim, self.values, dtype=dtype)
        self.norm = RMSNorm(self.values // self.heads, eps=config.norm_eps)
        self.out = dense(draw, "out", self.values, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> GatedDeltaNetCache:
        """The zero state."""
        shape = (batch, self.heads, self.config.head_dim, self.values // self.heads)
        return GatedDeltaNetCache(jnp.zeros(shape, jnp.float32), self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: GatedDeltaNetCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], GatedDeltaNetCache]:
        """Runs the T next tokens from the cached state."""
        qkv, tail = self.conv(self.qkv(x), cache.tail, segment_ids)
        q, k, v = jnp.split(qkv, [self.keys, 2 * self.keys], axis=-1)
        q, k = (rearrange(z, "B T (H K) -> B T H K", K=self.config.head_dim) for z in (q, k))
        v, gate = (rearrange(z, "B T (H V) -> B T H V", H=self.heads) for z in (v, self.gate(x)))
        beta = jax.nn.sigmoid(self.beta(x).astype(jnp.float32)) * (2 if self.config.negative_eigenvalues else 1)
        g = -jnp.exp(self.A_log[...]) * jax.nn.softplus(self.decay(x).astype(jnp.float32) + self.dt_bias)
        y, state = delta_rule(l2_norm(q), l2_norm(k), v, beta, g, initial_state=cache.state, segment_ids=segment_ids)
        y = self.norm(y.astype(jnp.float32)) * jax.nn.silu(gate.astype(jnp.float32))
        return self.out(rearrange(y, "B T H V -> B T (H V)")), GatedDeltaNetCache(state, tail)
