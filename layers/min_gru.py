"""minGRU: a GRU whose gates see the input only, so that its recurrence is a linear scan."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels import linear_scan
from . import flops
from .base import Mixer, MixerConfig
from .parts import Keys, ShortConv, conv_bytes, conv_params, dense


@dataclass(frozen=True)
class MinGRUConfig(MixerConfig):
    """Settings of ``MinGRU``.

    Args:
      expand: width of the state over the model width.
      short_conv: width of a causal filter on the input; 0: none.
    """

    expand: float = 2.0
    short_conv: int = 0

    def width(self, dim: int) -> int:
        """The width of the state."""
        return round(self.expand * dim)

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "MinGRU":
        """Builds the mixer."""
        return MinGRU(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        return 3 * dim * self.width(dim) + conv_params(self.short_conv, dim)

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        width = self.width(dim)
        return flops.short_conv(self.short_conv, dim) + 3 * flops.projection(dim, width) + flops.linear_scan(width)

    def state_bytes(self, dim: int, T: int) -> int:
        """The state and the filter's tail."""
        return 4 * self.width(dim) + conv_bytes(self.short_conv, dim)


class MinGRUCache(NamedTuple):
    """What ``MinGRU`` keeps."""

    state: Float[Array, "B D"]
    tail: Float[Array, "B tail C"]


class MinGRU(Mixer):
    """The minGRU mixer, with a projection back to the model width.

    ``z_t = sigmoid(W_z x_t)``, ``c_t = f(W_h x_t)`` with ``f(u) = u + 1/2`` where u >= 0, else ``sigmoid(u)``;
    ``h_t = (1 - z_t) h_{t-1} + z_t c_t``; ``y = W_o h``.

    Only the mixer: no norm before it, no residual. The paper keeps h positive by f to work in log space; the scan here
    needs no logarithm, f stays.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; gates and the scan are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Feng, Tung, Ahmed, Bengio & Hajimirsadeghi (2024), Were RNNs All We Needed?, arXiv 2410.01201.
    """

    def __init__(
        self,
        dim: int,
        config: MinGRUConfig = MinGRUConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys = Keys(rngs)
        self.width = config.width(dim)
        self.conv = ShortConv(keys, "conv", config.short_conv, dim)
        self.update = dense(keys, "update", dim, self.width, dtype=dtype)
        self.candidate = dense(keys, "candidate", dim, self.width, dtype=dtype)
        self.out = dense(keys, "out", self.width, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> MinGRUCache:
        """The zero state."""
        return MinGRUCache(jnp.zeros((batch, self.width), jnp.float32), self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: MinGRUCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], MinGRUCache]:
        """Runs the T next tokens from the cached state."""
        x, tail = self.conv(x, cache.tail, segment_ids)
        h, state = linear_scan(*self.terms(x), initial_state=cache.state, segment_ids=segment_ids)
        return self.out(self.read(h, x)), MinGRUCache(state, tail)

    def terms(self, x: Float[Array, "B T C"]) -> tuple[Float[Array, "B T D"], Float[Array, "B T D"]]:
        """What is kept of the state, and what is added to it."""
        z = self.update(x).astype(jnp.float32)
        return jax.nn.sigmoid(-z), jax.nn.sigmoid(z) * positive(self.candidate(x).astype(jnp.float32))

    def read(self, h: Float[Array, "B T D"], x: Float[Array, "B T C"]) -> Float[Array, "B T D"]:
        """What the projection back sees of the states."""
        return h


def positive(u: Float[Array, "..."]) -> Float[Array, "..."]:
    """``u + 1/2`` where u >= 0, else ``sigmoid(u)``."""
    return jnp.where(u >= 0, u + 0.5, jax.nn.sigmoid(u))
