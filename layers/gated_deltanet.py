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
      householders: steps of the delta rule a token, each with a key, a value and a beta of its own; above 1 this is
        Gated DeltaProduct.
      short_conv: width of the causal filter on q, k and v, before their SiLU; 0: SiLU alone.
      key_heads: heads of q and k, a divisor of ``heads``, each shared by as many value heads; None: ``heads``.
      norm_eps: epsilon of the output norm.
    """

    heads: int | None = None
    head_dim: int = 256
    expand_v: int = 2
    negative_eigenvalues: bool = False
    householders: int = 1
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

    def channels(self, dim: int) -> int:
        """The widths of q, and of k and v of all steps, together."""
        _, keys, values = self.sizes(dim)
        return keys + self.householders * (keys + values)

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "GatedDeltaNet":
        """Builds the mixer."""
        return GatedDeltaNet(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        heads, _, values = self.sizes(dim)
        projections = dim * (self.channels(dim) + 2 * values + (1 + self.householders) * heads)
        conv = conv_params(self.short_conv, self.channels(dim))
        return projections + conv + 2 * heads + values // heads

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        heads, _, values = self.sizes(dim)
        n, channels = self.householders, self.channels(dim)
        projections = flops.projection(dim, channels + values + (1 + n) * heads) + flops.projection(values, dim)
        recurrence = n * flops.delta_rule(heads, self.head_dim, values // heads)
        return projections + flops.short_conv(self.short_conv, channels) + recurrence

    def state_bytes(self, dim: int, T: int) -> int:
        """The state and the filter's tail."""
        _, _, values = self.sizes(dim)
        return 4 * self.head_dim * values + conv_bytes(self.short_conv, self.channels(dim))


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
        channels = config.channels(dim)
        self.qkv = dense(draw, "qkv", dim, channels, dtype=dtype)
        self.conv = ShortConv(draw, "conv", config.short_conv, channels, activation="silu")
        self.beta = dense(draw, "beta", dim, config.householders * self.heads, dtype=dtype)
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
        n, K = self.config.householders, self.config.head_dim
        q, k, v = jnp.split(qkv, [self.keys, (1 + n) * self.keys], axis=-1)
        q, k = rearrange(q, "B T (H K) -> B T H K", K=K), rearrange(k, "B T (n H K) -> B (T n) H K", n=n, K=K)
        v, gate = rearrange(v, "B T (n H V) -> B (T n) H V", n=n, H=self.heads), self.gate(x)
        gate = rearrange(gate, "B T (H V) -> B T H V", H=self.heads)
        beta = jax.nn.sigmoid(self.beta(x).astype(jnp.float32)) * (2 if self.config.negative_eigenvalues else 1)
        beta = rearrange(beta, "B T (n H) -> B (T n) H", n=n)
        g = -jnp.exp(self.A_log[...]) * jax.nn.softplus(self.decay(x).astype(jnp.float32) + self.dt_bias)
        if n > 1:  # the first step of a token decays, the last is read
            g, q = _at_step(g, 0, n), _at_step(q, n - 1, n)
            segment_ids = None if segment_ids is None else jnp.repeat(segment_ids, n, axis=1)
        y, state = self.recur(q, k, v, beta, g, initial_state=cache.state, segment_ids=segment_ids)
        y = self.norm(y[:, n - 1 :: n].astype(jnp.float32)) * self.activate(gate.astype(jnp.float32))
        return self.out(rearrange(y, "B T H V -> B T (H V)")), GatedDeltaNetCache(state, tail)

    def recur(self, q: Array, k: Array, v: Array, beta: Array, g: Array, **past) -> tuple[Array, Array]:
        """The recurrence of the filtered q, k and v."""
        return delta_rule(l2_norm(q), l2_norm(k), v, beta, g, **past)

    def activate(self, gate: Array) -> Array:
        """The output gate."""
        return jax.nn.silu(gate)


def _at_step(x: Float[Array, "B T ..."], step: int, n: int) -> Float[Array, "B nT ..."]:
    """x at one of each token's n steps, zeros at the others."""
    steps = jnp.pad(x[:, :, None], ((0, 0), (0, 0), (step, n - 1 - step), *[(0, 0)] * (x.ndim - 2)))
    return steps.reshape(x.shape[0], -1, *x.shape[2:])
