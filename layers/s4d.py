"""S4D: a diagonal state space model to each channel, the same at every token."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Float, Int

from ..kernels import diagonal_ssm
from . import flops
from .base import Mixer, MixerConfig
from .parts import Keys, ShortConv, conv_bytes, conv_params, dense


@dataclass(frozen=True)
class S4DConfig(MixerConfig):
    """Settings of ``S4D``.

    Args:
      state_dim: states per channel, an even number; they are conjugate pairs, of which one is kept (N is half).
      short_conv: width of a causal filter on the input; 0: none.
    """

    state_dim: int = 64
    short_conv: int = 0

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "S4D":
        """Builds the mixer."""
        return S4D(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        return ssm_params(dim, self.state_dim // 2) + dim + 2 * dim * (dim + 1) + conv_params(self.short_conv, dim)

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        recurrence = flops.diagonal_ssm(dim, self.state_dim // 2)
        return flops.short_conv(self.short_conv, dim) + recurrence + flops.projection(dim, 2 * dim)

    def state_bytes(self, dim: int, T: int) -> int:
        """The complex state and the filter's tail."""
        return 8 * dim * (self.state_dim // 2) + conv_bytes(self.short_conv, dim)


class S4DCache(NamedTuple):
    """What ``S4D`` keeps."""

    state: Complex[Array, "B D N"]
    tail: Float[Array, "B tail D"]


class DiagonalSSM(nnx.Module):
    """The state space models themselves: with ``A = -exp(log_rate) + i imag``, ``dt = exp(log_dt)`` and B = 1,

    ``h_t = exp(dt A) h_{t-1} + x_t``, ``y_t = 2 Re sum_n C_n ((exp(dt A_n) - 1) / A_n) h_tn`` (zero-order hold).

    As in the official code, A starts at ``-1/2 + i pi n`` (S4D-Lin), dt log-uniform in [0.001, 0.1], and C complex
    normal of variance 1.
    """

    def __init__(self, keys: Keys, name: str, channels: int, N: int):
        def normal(part: str) -> Array:
            return 0.5**0.5 * jax.random.normal(keys(f"{name}.{part}"), (channels, N), jnp.float32)

        key = keys(f"{name}.log_dt")
        self.log_dt = nnx.Param(jax.random.uniform(key, (channels,), minval=np.log(1e-3), maxval=np.log(0.1)))
        self.log_rate = nnx.Param(jnp.full((channels, N), np.log(0.5), jnp.float32))
        self.imag = nnx.Param(jnp.tile(np.pi * np.arange(N, dtype=np.float32), (channels, 1)))
        self.real_C, self.imag_C = nnx.Param(normal("real_C")), nnx.Param(normal("imag_C"))

    def __call__(
        self, x: Float[Array, "B T D"], state: Complex[Array, "B D N"], segment_ids: Int[Array, "B T"] | None
    ) -> tuple[Float[Array, "B T D"], Complex[Array, "B D N"]]:
        """Runs the T next tokens; where x has more channels than there are models, each serves as many in a row."""
        A = jax.lax.complex(-jnp.exp(self.log_rate[...]), self.imag[...])
        log_a = jnp.exp(self.log_dt[...])[:, None] * A
        c = 2 * jax.lax.complex(self.real_C[...], self.imag_C[...]) * jnp.expm1(log_a) / A
        log_a, c = (jnp.repeat(z, x.shape[2] // z.shape[0], axis=0) for z in (log_a, c))
        return diagonal_ssm(x, log_a, c, initial_state=state, segment_ids=segment_ids)


def ssm_params(channels: int, N: int) -> int:
    """The number of parameters of a ``DiagonalSSM``."""
    return channels * (1 + 4 * N)


class S4D(Mixer):
    """The S4D mixer, with the gate that follows it.

    ``o_t = SSM(x)_t + D x_t``, a ``DiagonalSSM`` to each channel; ``y = (W_1 z + b_1) * sigmoid(W_2 z + b_2)`` with
    ``z = gelu(o)``.

    The official code trains by a long convolution. Here one recurrence trains and decodes, so that both are the same.
    It also has the exact GELU; here it is the tanh form, as everywhere.

    Only the mixer: no norm before it, no residual. ``DiagonalSSM`` says how it starts; D starts standard normal.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; the recurrence is complex64.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Gu, Gupta, Goel & Re (2022), On the Parameterization and Initialization of Diagonal State Space Models,
    arXiv 2206.11893; github.com/state-spaces/s4.
    """

    def __init__(
        self,
        dim: int,
        config: S4DConfig = S4DConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys = Keys(rngs)
        self.dim, self.N = dim, config.state_dim // 2
        self.conv = ShortConv(keys, "conv", config.short_conv, dim)
        self.ssm = DiagonalSSM(keys, "ssm", dim, self.N)
        self.D = nnx.Param(jax.random.normal(keys("D"), (dim,), jnp.float32))
        self.out = dense(keys, "out", dim, 2 * dim, dtype=dtype, bias=True)

    def init_cache(self, batch: int, max_len: int) -> S4DCache:
        """The zero state."""
        return S4DCache(jnp.zeros((batch, self.dim, self.N), jnp.complex64), self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: S4DCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], S4DCache]:
        """Runs the T next tokens from the cached state."""
        x, tail = self.conv(x, cache.tail, segment_ids)
        y, state = self.ssm(x.astype(jnp.float32), cache.state, segment_ids)
        value, gate = jnp.split(self.out(jax.nn.gelu(y + self.D * x, approximate=True)), 2, axis=-1)
        return value * jax.nn.sigmoid(gate), S4DCache(state, tail)
