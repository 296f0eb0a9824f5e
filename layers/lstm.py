"""LSTM: the recurrent network with a gated memory cell, its input projections done for all tokens at once."""

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

GATES = "ifzo"


@dataclass(frozen=True)
class LSTMConfig(rnn.RecurrentConfig):
    """Settings of ``LSTM``: see ``RecurrentConfig``."""

    GATES = 4
    VECTORS = 2

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "LSTM":
        """Builds the mixer."""
        return LSTM(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)


class LSTMState(NamedTuple):
    """Hidden state and cell."""

    h: Float[Array, "..."]
    c: Float[Array, "..."]


class LSTMCache(NamedTuple):
    """What ``LSTM`` keeps."""

    hidden: Float[Array, "B H D"]
    cell: Float[Array, "B H D"]
    tail: Float[Array, "B tail C"]


def lstm_cell(state: LSTMState, inputs: Array, recurrent: Array) -> LSTMState:
    """One token of the LSTM."""
    i, f, z, o = jnp.moveaxis(inputs + recurrent, -2, 0)
    c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(z)
    return LSTMState(jax.nn.sigmoid(o) * jnp.tanh(c), c)


class LSTM(Mixer):
    """The LSTM mixer, with a projection back to the model width.

    ``i, f, z, o = W x_t + R h_{t-1} + b``; ``c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(z)``,
    ``h_t = sigmoid(o) tanh(c_t)``; ``y = W_o h``. No peepholes.

    Only the mixer: no norm before it, no residual. R starts uniform in +-1 / sqrt(width of a head), as PyTorch's, the
    biases at zero but for f, at one.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what the projections compute in; the recurrence is float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Greff, Srivastava, Koutnik, Steunebrink & Schmidhuber (2015), A Search Space Odyssey, arXiv 1503.04069, on
    Hochreiter & Schmidhuber's LSTM (1997).
    """

    def __init__(
        self,
        dim: int,
        config: LSTMConfig = LSTMConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys, width, H = Keys(rngs), config.width(dim), config.heads
        self.conv = ShortConv(keys, "conv", config.short_conv, dim)
        self.inputs = dense(keys, "inputs", dim, 4 * width, dtype=dtype)
        self.recurrent = nnx.Param(rnn.recurrent(keys, H, 4, width // H))
        self.bias = nnx.Param(jnp.zeros((H, 4, width // H)).at[:, GATES.index("f")].set(1.0))
        self.out = dense(keys, "out", width, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> LSTMCache:
        """The zero state."""
        H, _, width = self.bias.shape
        zero = jnp.zeros((batch, H, width), jnp.float32)
        return LSTMCache(zero, zero, self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: LSTMCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], LSTMCache]:
        """Runs the T next tokens from the cached state."""
        x, tail = self.conv(x, cache.tail, segment_ids)
        gates = rearrange(self.inputs(x), "B T (H G D) -> B T H G D", H=self.bias.shape[0], G=4)
        gates = gates.astype(jnp.float32) + self.bias[...]
        state = LSTMState(cache.hidden, cache.cell)
        h, state = scan_cell(lstm_cell, gates, self.recurrent[...], state, segment_ids)
        return self.out(rearrange(h, "B T H D -> B T (H D)")), LSTMCache(state.h, state.c, tail)
