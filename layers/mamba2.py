"""Mamba-2: a state space model with one scalar decay per head."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels import gla, log_linear
from ..kernels.log_linear import State as LevelStates
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
    log_uniform_decays,
    projected,
    uniform_within,
)


@dataclass(frozen=True)
class Mamba2Config(MixerConfig):
    """Settings of ``Mamba2``; the defaults are the official code's.

    Args:
      heads: heads of the inner width; None: as many as fill ``expand`` times the model width.
      head_dim: width of a head (V).
      state_dim: state size per channel (K).
      expand: inner width over model width, where ``heads`` is None.
      groups: heads in equal groups share B and C.
      short_conv: width of the causal filter on x, B and C; 0: none.
      levels: of log-linear attention, at least 2: enough for 2^(levels - 1) tokens to be told apart by distance; 0:
        plain Mamba-2.
      norm_eps: epsilon of the gated norm.
      out_norm: whether there is that norm; Falcon-H1 has the gate alone.
    """

    heads: int | None = None
    head_dim: int = 64
    state_dim: int = 128
    expand: int = 2
    groups: int = 1
    short_conv: int = 4
    levels: int = 0
    norm_eps: float = 1e-5
    out_norm: bool = True

    def sizes(self, dim: int) -> tuple[int, int, int]:
        """The number of heads, the inner width, and the number of channels of x, B and C together."""
        heads = head_count(self.heads, self.expand * dim, self.head_dim)
        if heads % self.groups:
            raise ValueError(f"mamba2: heads={heads} must be a multiple of groups={self.groups}")
        inner = heads * self.head_dim
        return heads, inner, inner + 2 * self.groups * self.state_dim

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "Mamba2":
        """Builds the mixer."""
        return Mamba2(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        heads, inner, channels = self.sizes(dim)
        levels = heads * self.levels
        projections = dim * (inner + channels + heads + levels) + inner * dim + levels
        return projections + conv_params(self.short_conv, channels, bias=True) + 3 * heads + self.out_norm * inner

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        heads, inner, channels = self.sizes(dim)
        levels = heads * self.levels
        projections = flops.projection(dim, inner + channels + heads + levels) + flops.projection(inner, dim)
        recurrence = flops.gla(heads, self.state_dim, self.head_dim)
        if self.levels:
            recurrence = flops.log_linear(heads, self.state_dim, self.head_dim, self.levels)
        return projections + flops.short_conv(self.short_conv, channels) + recurrence

    def state_bytes(self, dim: int, T: int) -> int:
        """The state (one a level from 1 on, and the count of tokens) and the filter's tail."""
        heads, _, channels = self.sizes(dim)
        states = max(self.levels - 1, 1) * heads * self.state_dim * self.head_dim + (self.levels > 0)
        return 4 * states + conv_bytes(self.short_conv, channels)


class Mamba2Cache(NamedTuple):
    """What ``Mamba2`` keeps."""

    state: Float[Array, "B H K V"] | LevelStates
    tail: Float[Array, "B tail D"]


class Mamba2(Mixer):
    """The Mamba-2 mixer.

    ``z, x, B, C, dt = W_in u``; x, B, C pass the short filter and SiLU; per head, with
    ``dt = softplus(dt + dt_bias)`` and ``A = -exp(A_log)``:
    ``S_t = exp(A dt) S_{t-1} + B_t (dt x_t)^T``, ``o_t = S_t^T C_t + D x_t``; ``y = W_out norm(o * silu(z))``.
    With ``levels`` (Log-Linear Mamba-2), what a token reads is weighed by its distance, as ``kernels.log_linear`` has
    it, with weights ``softplus(l * W_l u)``, l starting at 1.

    Only the mixer: no norm before it, no residual. As in the official code, exp(A_log) starts uniform in [1, 16],
    softplus(dt_bias) log-uniform in [0.001, 0.1], D at 1, and the norm works within each group.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; steps, decays and the norm are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Dao & Gu (2024), Transformers are SSMs, arXiv 2405.21060; github.com/state-spaces/mamba; levels: Guo et al.
    (2025), Log-Linear Attention, arXiv 2506.04761; github.com/fla-org/flash-linear-attention.
    """

    def __init__(
        self,
        dim: int,
        config: Mamba2Config = Mamba2Config(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys = Keys(rngs)
        self.config = config
        self.heads, self.inner, self.channels = config.sizes(dim)
        self.in_proj = dense(keys, "in_proj", dim, self.inner + self.channels + self.heads, dtype=dtype)
        width = config.short_conv
        bias_init = uniform_within(width**-0.5) if width else None
        self.conv = ShortConv(keys, "conv", width, self.channels, activation="silu", bias_init=bias_init)
        self.A_log = nnx.Param(log_uniform_decays(keys("A_log"), self.heads, low=1.0))
        self.dt_bias = nnx.Param(inverse_softplus_steps(keys("dt_bias"), self.heads))
        self.D = nnx.Param(jnp.ones(self.heads, jnp.float32))
        weigh = (self.heads, config.levels)
        self.weigh = dense(keys, "weigh", dim, weigh[0] * weigh[1], dtype=dtype) if config.levels else None
        self.level_scale = nnx.Param(jnp.ones(weigh, jnp.float32)) if config.levels else None
        self.norm = RMSNorm(self.inner, groups=config.groups, eps=config.norm_eps) if config.out_norm else None
        self.out = dense(keys, "out", self.inner, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> Mamba2Cache:
        """The zero state."""
        levels, shape = self.config.levels, (self.config.state_dim, self.config.head_dim)
        state: Any = jnp.zeros((batch, self.heads, *((levels - 1,) if levels else ()), *shape), jnp.float32)
        state = (state, jnp.zeros(batch, jnp.float32)) if levels else state
        return Mamba2Cache(state, self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: Mamba2Cache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], Mamba2Cache]:
        """Runs the T next tokens from the cached state."""
        weights = None
        if self.weigh is not None and self.level_scale is not None:
            weights = rearrange(self.weigh(x).astype(jnp.float32), "B T (H L) -> B T H L", H=self.heads)
            weights = jax.nn.softplus(self.level_scale[...] * weights)
        z, xBC, dt = projected(self.in_proj, x, [self.inner, self.inner + self.channels])
        xBC, tail = self.conv(xBC, cache.tail, segment_ids)
        x, BC = jnp.split(xBC, [self.inner], axis=-1)
        x = rearrange(x, "B T (H V) -> B T H V", H=self.heads)
        k, q = rearrange(BC, "B T (two G K) -> two B T G K", two=2, G=self.config.groups)
        dt = jax.nn.softplus(dt.astype(jnp.float32) + self.dt_bias)
        g = -jnp.exp(self.A_log[...]) * dt
        v = (dt[..., None] * x).astype(x.dtype)
        arguments = {"scale": 1.0, "initial_state": cache.state, "segment_ids": segment_ids}
        y, state = gla(q, k, v, g, **arguments) if weights is None else log_linear(q, k, v, g, weights, **arguments)

        @jax.checkpoint  # cheaper to compute again than to store
        def gated(y, x, z, D, norm):
            y = y.astype(jnp.float32) + D[:, None] * x
            y = rearrange(y, "B T H V -> B T (H V)") * jax.nn.silu(z.astype(jnp.float32))
            return y if norm is None else norm(y)

        return self.out(gated(y, x, z, self.D[...], self.norm)), Mamba2Cache(state, tail)
