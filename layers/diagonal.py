"""What LRU and S5 share: a diagonal complex recurrence, blind to the input, between two dense maps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Float, Int

from ..kernels import linear_scan
from . import flops
from .base import Mixer
from .parts import Keys, ShortConv, conv_bytes, conv_params, dense

HALF = jax.nn.initializers.variance_scaling(0.5, "fan_in", "normal")  # real and imaginary parts share the variance
DOUBLE = jax.nn.initializers.variance_scaling(2.0, "fan_in", "normal")  # C has N complex inputs, not 2 N


class DiagonalCache(NamedTuple):
    """What a diagonal mixer keeps."""

    state: Complex[Array, "B N"]
    tail: Float[Array, "B tail D"]


class DiagonalMixer(Mixer):
    """``h_t = a h_{t-1} + s * (B u_t)``, ``o_t = Re(C h_t) + D u_t`` with complex a and s of N entries, B and C.

    A subclass says what a and s are, and what becomes of o. B and C are real matrices on real and imaginary parts, so
    that they compute in any dtype: ``B u = b[:N] + i b[N:]``, and Re(C h) takes the imaginary part of C negated.
    """

    def __init__(self, keys: Keys, dim: int, N: int, short_conv: int, dtype: DTypeLike):
        self.N = N
        self.conv = ShortConv(keys, "conv", short_conv, dim)
        self.B = dense(keys, "B", dim, 2 * N, dtype=dtype, init=HALF)
        self.C = dense(keys, "C", 2 * N, dim, dtype=dtype, init=DOUBLE)
        self.D = nnx.Param(jax.random.normal(keys("D"), (dim,), jnp.float32))

    def decay(self) -> tuple[Complex[Array, " N"], Complex[Array, " N"] | Float[Array, " N"]]:
        """The decays a and the input scales s."""
        raise NotImplementedError

    def output(self, o: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """What follows the recurrence."""
        raise NotImplementedError

    def init_cache(self, batch: int, max_len: int) -> DiagonalCache:
        """The zero state."""
        return DiagonalCache(jnp.zeros((batch, self.N), jnp.complex64), self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: DiagonalCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], DiagonalCache]:
        """Runs the T next tokens from the cached state."""
        x, tail = self.conv(x, cache.tail, segment_ids)
        u = jax.lax.complex(*jnp.split(self.B(x).astype(jnp.float32), 2, axis=-1))
        a, scale = self.decay()
        h, state = linear_scan(
            jnp.broadcast_to(a, u.shape), scale * u, initial_state=cache.state, segment_ids=segment_ids
        )
        y = self.C(jnp.concatenate([h.real, h.imag], axis=-1)).astype(jnp.float32)
        return self.output(y + self.D * x), DiagonalCache(state, tail)


def diagonal_params(dim: int, N: int, short_conv: int) -> int:
    """The number of parameters of B, C, D and the filter."""
    return 4 * dim * N + dim + conv_params(short_conv, dim)


def diagonal_flops(dim: int, N: int, short_conv: int) -> float:
    """Operations of one token up to o."""
    maps = flops.projection(dim, 2 * N) + flops.projection(2 * N, dim)
    return flops.short_conv(short_conv, dim) + maps + flops.complex_scan(N)


def diagonal_bytes(dim: int, N: int, short_conv: int) -> int:
    """The complex state and the filter's tail."""
    return 8 * N + conv_bytes(short_conv, dim)
