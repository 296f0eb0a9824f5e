"""QRNN: gates by a convolution over all channels, and a recurrence that is elementwise."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels import linear_scan, short_conv
from . import flops
from .base import Mixer, MixerConfig
from .parts import Keys, conv_bytes, dense


@dataclass(frozen=True)
class QRNNConfig(MixerConfig):
    """Settings of ``QRNN``.

    Args:
      expand: width of the state over the model width.
      short_conv: how many tokens the gates see, through matrices and not one filter a channel; 0 or 1: the token alone.
    """

    expand: float = 1.0
    short_conv: int = 2

    def sizes(self, dim: int) -> tuple[int, int]:
        """The width of the state, and the number of tokens seen."""
        return round(self.expand * dim), max(self.short_conv, 1)

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "QRNN":
        """Builds the mixer."""
        return QRNN(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        width, seen = self.sizes(dim)
        return 3 * width * (seen * dim + 1) + width * dim

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        width, seen = self.sizes(dim)
        return flops.projection(seen * dim, 3 * width) + flops.projection(width, dim) + flops.linear_scan(width)

    def state_bytes(self, dim: int, T: int) -> int:
        """The state and the last inputs."""
        return 4 * self.sizes(dim)[0] + conv_bytes(self.short_conv, dim)


class QRNNCache(NamedTuple):
    """What ``QRNN`` keeps."""

    state: Float[Array, "B D"]
    tail: Float[Array, "B tail C"]


class QRNN(Mixer):
    """The QRNN mixer with fo-pooling, and a projection back to the model width.

    ``z, f, o = W [x_{t-k+1}, ..., x_t] + b``; ``c_t = sigmoid(f) c_{t-1} + (1 - sigmoid(f)) tanh(z)``,
    ``h_t = sigmoid(o) c_t``; ``y = W_o h``.

    Only the mixer: no norm before it, no residual. The biases start at zero.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; gates and the scan are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Bradbury, Merity, Xiong & Socher (2016), Quasi-Recurrent Neural Networks, arXiv 1611.01576.
    """

    def __init__(
        self,
        dim: int,
        config: QRNNConfig = QRNNConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys = Keys(rngs)
        self.dim, (self.width, self.seen) = dim, config.sizes(dim)
        self.gates = dense(keys, "gates", self.seen * dim, 3 * self.width, dtype=dtype, bias=True)
        self.out = dense(keys, "out", self.width, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> QRNNCache:
        """The zero state."""
        tail = jnp.zeros((batch, self.seen - 1, self.dim), jnp.float32)
        return QRNNCache(jnp.zeros((batch, self.width), jnp.float32), tail)

    def prefill(
        self, x: Float[Array, "B T D"], cache: QRNNCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], QRNNCache]:
        """Runs the T next tokens from the cached state."""
        seen, tail = self._seen(x, cache.tail, segment_ids)
        z, f, o = jnp.split(self.gates(seen).astype(jnp.float32), 3, axis=-1)
        added = jax.nn.sigmoid(-f) * jnp.tanh(z)
        c, state = linear_scan(jax.nn.sigmoid(f), added, initial_state=cache.state, segment_ids=segment_ids)
        return self.out(jax.nn.sigmoid(o) * c), QRNNCache(state, tail)

    def _seen(self, x, tail, segment_ids):
        """Each token behind those before it, oldest first: filters that are one at one place fetch them."""
        if self.seen == 1:
            return x, tail
        filters = jnp.repeat(jnp.eye(self.seen)[:-1, :, None], self.dim, axis=2)
        before = [short_conv(x, one, initial_state=tail, segment_ids=segment_ids) for one in filters]
        return jnp.concatenate([*(y for y, _ in before), x], -1), before[0][1]
