"""The Linear Recurrent Unit: a diagonal complex RNN with stable exponential decays."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from . import flops
from .base import MixerConfig
from .diagonal import DiagonalMixer, diagonal_bytes, diagonal_flops, diagonal_params
from .parts import Keys, dense


@dataclass(frozen=True)
class LRUConfig(MixerConfig):
    """Settings of ``LRU``.

    Args:
      state_dim: complex entries of the state (N); None: the model width.
      min_radius: least initial absolute value of a decay.
      max_radius: largest initial absolute value of a decay.
      max_phase: largest initial angle of a decay.
      short_conv: width of a causal filter on the input; 0: none.
    """

    state_dim: int | None = None
    min_radius: float = 0.9
    max_radius: float = 0.999
    max_phase: float = 6.28
    short_conv: int = 0

    def width(self, dim: int) -> int:
        """The number of complex entries of the state."""
        return self.state_dim or dim

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "LRU":
        """Builds the mixer."""
        return LRU(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        N = self.width(dim)
        return diagonal_params(dim, N, self.short_conv) + 3 * N + 2 * dim * (dim + 1)

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        return diagonal_flops(dim, self.width(dim), self.short_conv) + flops.projection(dim, 2 * dim)

    def state_bytes(self, dim: int, T: int) -> int:
        """The state and the filter's tail."""
        return diagonal_bytes(dim, self.width(dim), self.short_conv)


class LRU(DiagonalMixer):
    """The Linear Recurrent Unit, with the gate that follows it.

    ``a = exp(-exp(nu) + i exp(theta))``, ``h_t = a h_{t-1} + exp(gamma) * (B u_t)``, ``o_t = Re(C h_t) + D u_t``;
    ``y = (W_1 z + b_1) * sigmoid(W_2 z + b_2)`` with ``z = gelu(o)``.

    Only the mixer: no norm before it, no residual. As in the paper, a starts uniform on the ring between the two radii
    (in area) with angles uniform up to ``max_phase``, exp(gamma) at ``sqrt(1 - |a|^2)``, B with variance 1 / width, C
    with variance 2 / N (real and imaginary parts share it), D standard normal.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; decays and the state are complex64.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Orvieto et al. (2023), Resurrecting Recurrent Neural Networks for Long Sequences, arXiv 2303.06349.
    """

    def __init__(
        self,
        dim: int,
        config: LRUConfig = LRUConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys, N = Keys(rngs), config.width(dim)
        super().__init__(keys, dim, N, config.short_conv, dtype)
        square = jax.random.uniform(keys("nu"), (N,), minval=config.min_radius**2, maxval=config.max_radius**2)
        phase = jax.random.uniform(keys("theta"), (N,), minval=1e-6, maxval=config.max_phase)
        self.nu = nnx.Param(jnp.log(-0.5 * jnp.log(square)))
        self.theta = nnx.Param(jnp.log(phase))
        self.gamma = nnx.Param(0.5 * jnp.log1p(-square))
        self.out = dense(keys, "out", dim, 2 * dim, dtype=dtype, bias=True)

    def decay(self):
        """The decays, and scales that keep the state's variance at the input's."""
        log_a = jax.lax.complex(-jnp.exp(self.nu[...]), jnp.exp(self.theta[...]))
        return jnp.exp(log_a), jnp.exp(self.gamma[...])

    def output(self, o: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """GELU and a gated linear unit."""
        value, gate = jnp.split(self.out(jax.nn.gelu(o, approximate=True)), 2, axis=-1)
        return value * jax.nn.sigmoid(gate)
