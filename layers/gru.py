"""GRU: the gated recurrent unit, its input projections done for all tokens at once."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels.recurrence import scan_cell
from . import rnn
from .base import Mixer
from .parts import Keys, ShortConv, dense


@dataclass(frozen=True)
class GRUConfig(rnn.RecurrentConfig):
    """Settings of ``GRU``: see ``RecurrentConfig``."""

    GATES = 3
    VECTORS = 1

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "GRU":
        """Builds the mixer."""
        return GRU(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)


class GRUState(NamedTuple):
    """The hidden state."""

    h: Float[Array, "..."]


class GRUCache(NamedTuple):
    """What ``GRU`` keeps."""

    hidden: Float[Array, "B H D"]
    tail: Float[Array, "B tail C"]


def gru_cell(state: GRUState, inputs: Array, recurrent: Array) -> GRUState:
    """One token of the GRU."""
    x, u = jnp.moveaxis(inputs, -2, 0), jnp.moveaxis(recurrent, -2, 0)
    r, z = jax.nn.sigmoid(x[0] + u[0]), jax.nn.sigmoid(x[1] + u[1])
    return GRUState(z * state.h + (1 - z) * jnp.tanh(x[2] + r * u[2]))


class GRU(Mixer):
    """The GRU mixer, with a projection back to the model width.

    ``r = sigmoid(W_r x_t + R_r h_{t-1} + b_r)``, ``z = sigmoid(W_z x_t + R_z h_{t-1} + b_z)``,
    ``c = tanh(W_c x_t + r * (R_c h_{t-1}) + b_c)``; ``h_t = z h_{t-1} + (1 - z) c``; ``y = W_o h``.

    Only the mixer: no norm before it, no residual. The reset gate comes after the matrix, as in the first version of
    the paper and in cuDNN, so that one product serves all gates. R starts uniform in +-1 / sqrt(width of a head), as
    PyTorch's, the biases at zero.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what the projections compute in; the recurrence is float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Cho et al. (2014), Learning Phrase Representations using RNN Encoder-Decoder, arXiv 1406.1078.
    """

    def __init__(
        self,
        dim: int,
        config: GRUConfig = GRUConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys, width, H = Keys(rngs), config.width(dim), config.heads
        self.conv = ShortConv(keys, "conv", config.short_conv, dim)
        self.inputs = dense(keys, "inputs", dim, 3 * width, dtype=dtype)
        self.recurrent = nnx.Param(rnn.recurrent(keys, H, 3, width // H))
        self.bias = nnx.Param(jnp.zeros((H, 3, width // H)))
        self.out = dense(keys, "out", width, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> GRUCache:
        """The zero state."""
        H, _, width = self.bias.shape
        return GRUCache(jnp.zeros((batch, H, width), jnp.float32), self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: GRUCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], GRUCache]:
        """Runs the T next tokens from the cached state."""
        x, tail = self.conv(x, cache.tail, segment_ids)
        gates = rearrange(self.inputs(x), "B T (H G D) -> B T H G D", H=self.bias.shape[0], G=3)
        gates = gates.astype(jnp.float32) + self.bias[...]
        state = GRUState(cache.hidden)
        h, state = scan_cell(gru_cell, gates, self.recurrent[...], state, segment_ids)
        return self.out(rearrange(h, "B T H D -> B T (H D)")), GRUCache(state.h, tail)
