"""Mamba (S6): a state space model whose step sizes, and what writes and reads, depend on the input."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels import selective_scan
from . import flops
from .base import Mixer, MixerConfig
from .parts import (
    Keys,
    RMSNorm,
    ShortConv,
    conv_bytes,
    conv_params,
    dense,
    inverse_softplus_steps,
    projected,
    uniform_within,
)


@dataclass(frozen=True)
class MambaConfig(MixerConfig):
    """Settings of ``Mamba``; the defaults are the official code's.

    Args:
      state_dim: states per channel (N).
      expand: inner width over model width.
      dt_rank: rank of the map that gives the step sizes; None: a sixteenth of the model width, rounded up.
      inner_norm: RMS norms on the low-rank step, B and C, as Jamba and Falcon Mamba have them.
      short_conv: width of the causal filter before the recurrence; 0: none.
      norm_eps: epsilon of the inner norms.
    """

    state_dim: int = 16
    expand: int = 2
    dt_rank: int | None = None
    inner_norm: bool = False
    short_conv: int = 4
    norm_eps: float = 1e-5

    def sizes(self, dim: int) -> tuple[int, int]:
        """The inner width, and the rank of the step sizes."""
        return self.expand * dim, -(-dim // 16) if self.dt_rank is None else self.dt_rank

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "Mamba":
        """Builds the mixer."""
        return Mamba(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        inner, rank = self.sizes(dim)
        low = rank + 2 * self.state_dim
        projections = 3 * dim * inner + inner * low + rank * inner
        rest = inner * (self.state_dim + 2) + self.inner_norm * low  # A_log, D and the bias of the steps; norms
        return projections + conv_params(self.short_conv, inner, bias=True) + rest

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        inner, rank = self.sizes(dim)
        low = flops.projection(inner, rank + 2 * self.state_dim) + flops.projection(rank, inner)
        conv = flops.short_conv(self.short_conv, inner)
        return 3 * flops.projection(dim, inner) + low + conv + self.recurrence_flops(inner)

    def recurrence_flops(self, inner: int) -> float:
        """Operations of one token's recurrence."""
        return flops.selective_scan(inner, self.state_dim)

    def state_bytes(self, dim: int, T: int) -> int:
        """The state and the filter's tail."""
        inner, _ = self.sizes(dim)
        return 4 * inner * self.state_dim + conv_bytes(self.short_conv, inner)


class MambaCache(NamedTuple):
    """What ``Mamba`` keeps."""

    state: Float[Array, "B D N"]
    tail: Float[Array, "B tail D"]


class Mamba(Mixer):
    """The Mamba mixer.

    ``x, z = W_in u``; x passes the short filter and SiLU; ``r, B, C = W_x x``, ``dt = softplus(W_dt r + dt_bias)``,
    ``A = -exp(A_log)``; ``h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T``, ``o_t = h_t C_t + D x_t``;
    ``y = W_out (o * silu(z))``.

    Only the mixer: no norm before it, no residual. As in the official code, A starts at -1 .. -N in every channel
    (S4D-Real), softplus(dt_bias) log-uniform in [0.001, 0.1], W_dt uniform in +-rank^-0.5, D at 1.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; steps, decays and the state are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Gu & Dao (2023), Mamba, arXiv 2312.00752; github.com/state-spaces/mamba.
    """

    def __init__(
        self,
        dim: int,
        config: MambaConfig = MambaConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys = Keys(rngs)
        self.config = config
        self.inner, self.rank = config.sizes(dim)
        N, width = config.state_dim, config.short_conv
        self.in_proj = dense(keys, "in_proj", dim, 2 * self.inner, dtype=dtype)
        bias_init = uniform_within(width**-0.5) if width else None
        self.conv = ShortConv(keys, "conv", width, self.inner, activation="silu", bias_init=bias_init)
        self.x_proj = dense(keys, "x_proj", self.inner, self.rank + 2 * N, dtype=dtype)
        widths = (self.rank, N, N) if config.inner_norm else ()
        norms = [RMSNorm(n, eps=config.norm_eps) for n in widths] or [None] * 3
        self.dt_norm, self.B_norm, self.C_norm = norms
        dt_init = uniform_within(self.rank**-0.5)
        self.dt_proj = dense(keys, "dt_proj", self.rank, self.inner, dtype=dtype, init=dt_init)
        self.init_recurrence(keys)
        self.D = nnx.Param(jnp.ones(self.inner, jnp.float32))
        self.out = dense(keys, "out", self.inner, dim, dtype=dtype)

    def init_recurrence(self, keys: Keys) -> None:
        """The bias of the step sizes, and A."""
        N = self.config.state_dim
        self.dt_bias = nnx.Param(inverse_softplus_steps(keys("dt_bias"), self.inner))
        self.A_log = nnx.Param(jnp.tile(jnp.log(np.arange(1, N + 1, dtype=np.float32)), (self.inner, 1)))

    def recur(
        self,
        x: Float[Array, "B T D"],
        dt: Float[Array, "B T D"],
        B: Float[Array, "B T N"],
        C: Float[Array, "B T N"],
        state: Float[Array, "B D N"],
        segment_ids: Int[Array, "B T"] | None,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B D N"]]:
        """The recurrence alone, from steps before their bias and softplus."""
        dt, A = jax.nn.softplus(dt + self.dt_bias), -jnp.exp(self.A_log[...])
        return selective_scan(x, dt, A, B, C, initial_state=state, segment_ids=segment_ids)

    def init_cache(self, batch: int, max_len: int) -> MambaCache:
        """The zero state."""
        state = jnp.zeros((batch, self.inner, self.config.state_dim), jnp.float32)
        return MambaCache(state, self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: MambaCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], MambaCache]:
        """Runs the T next tokens from the cached state."""
        x, z = projected(self.in_proj, x, 2)
        x, tail = self.conv(x, cache.tail, segment_ids)
        r, B, C = projected(self.x_proj, x, [self.rank, self.rank + self.config.state_dim])
        if self.dt_norm is not None and self.B_norm is not None and self.C_norm is not None:
            r, B, C = self.dt_norm(r), self.B_norm(B), self.C_norm(C)
        y, state = self.recur(x, self.dt_proj(r).astype(jnp.float32), B, C, cache.state, segment_ids)
        y = y.astype(jnp.float32) + self.D * x
        return self.out(y * jax.nn.silu(z.astype(jnp.float32))), MambaCache(state, tail)
