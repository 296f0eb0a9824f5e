"""S5: one state space model for all channels, diagonal and complex, after HiPPO."""

from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from . import flops
from .base import MixerConfig
from .diagonal import DiagonalMixer, diagonal_bytes, diagonal_flops, diagonal_params
from .parts import Keys, dense

LARGEST_REAL = -1e-4
"""Eigenvalues are kept this far inside the left half plane."""


@dataclass(frozen=True)
class S5Config(MixerConfig):
    """Settings of ``S5``.

    Args:
      state_dim: complex entries of the state (N), each standing for itself and its conjugate; None: half the model
        width.
      blocks: the initial state matrix is this many HiPPO matrices side by side; it divides ``state_dim``.
      short_conv: width of a causal filter on the input; 0: none.
    """

    state_dim: int | None = None
    blocks: int = 1
    short_conv: int = 0

    def width(self, dim: int) -> int:
        """The number of complex entries of the state."""
        N = self.state_dim or dim // 2
        if N % self.blocks:
            raise ValueError(f"s5: state_dim={N} must be a multiple of blocks={self.blocks}")
        return N

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "S5":
        """Builds the mixer."""
        return S5(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        N = self.width(dim)
        return diagonal_params(dim, N, self.short_conv) + 3 * N + dim * (dim + 1)

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        return diagonal_flops(dim, self.width(dim), self.short_conv) + flops.projection(dim, dim)

    def state_bytes(self, dim: int, T: int) -> int:
        """The state and the filter's tail."""
        return diagonal_bytes(dim, self.width(dim), self.short_conv)


class S5(DiagonalMixer):
    """The S5 mixer, with the gate that follows it.

    ``lambda = min(real, -1e-4) + i imag``, ``a = exp(dt lambda)`` (zero-order hold);
    ``h_t = a h_{t-1} + ((a - 1) / lambda) * (B u_t)``, ``o_t = Re(C h_t) + D u_t``;
    ``y = z * sigmoid(W z + b)`` with ``z = gelu(o)``. C is twice the paper's, as one of
    each conjugate pair is kept.

    Only the mixer: no norm before it, no residual. lambda starts at the eigenvalues with positive imaginary part of the
    normal part of HiPPO-LegS, dt log-uniform in [0.001, 0.1], D standard normal. B starts with variance 1 / width, C
    with variance 2 / N, real and imaginary parts sharing it: what the official code's draws are in the eigenbasis,
    since the basis is unitary.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; decays and the state are complex64.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Smith, Warrington & Linderman (2022), Simplified State Space Layers for Sequence Modeling, arXiv 2208.04933;
    github.com/lindermanlab/S5.
    """

    def __init__(
        self,
        dim: int,
        config: S5Config = S5Config(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys, N = Keys(rngs), config.width(dim)
        super().__init__(keys, dim, N, config.short_conv, dtype)
        self.real = nnx.Param(jnp.full(N, -0.5, jnp.float32))
        self.imag = nnx.Param(jnp.asarray(np.tile(hippo_frequencies(N // config.blocks), config.blocks)))
        self.log_dt = nnx.Param(jax.random.uniform(keys("log_dt"), (N,), minval=np.log(1e-3), maxval=np.log(0.1)))
        self.out = dense(keys, "out", dim, dim, dtype=dtype, bias=True)

    def decay(self):
        """Zero-order hold."""
        rate = jax.lax.complex(jnp.minimum(self.real[...], LARGEST_REAL), self.imag[...])
        a = jnp.exp(jnp.exp(self.log_dt[...]) * rate)
        return a, (a - 1) / rate

    def output(self, o: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """GELU, gated by a map of itself."""
        z = jax.nn.gelu(o, approximate=True)
        gate = self.out(z)
        return z.astype(gate.dtype) * jax.nn.sigmoid(gate)


@cache
def hippo_frequencies(N: int) -> np.ndarray:
    """The N positive imaginary parts of the eigenvalues of HiPPO-LegS's normal part, of size 2 N.

    That part is ``-1/2 I`` plus a skew-symmetric matrix with entries ``sqrt((n + 1/2) (m + 1/2))``, so
    that the real parts are -1/2.
    """
    root = np.sqrt(np.arange(2 * N) + 0.5)
    lower = np.tril(np.outer(root, root), -1)
    return np.linalg.eigvalsh(1j * (lower - lower.T))[N:].astype(np.float32)
