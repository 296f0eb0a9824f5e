"""What LSTM and GRU share: their settings, what these cost, and the recurrent matrices."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from . import flops
from .base import MixerConfig
from .parts import Keys, conv_bytes, conv_params, uniform_within

ARITHMETIC = 8
"""Operations on each channel of the hidden state besides the matrix products: sums of gates, cell and output."""


@dataclass(frozen=True)
class RecurrentConfig(MixerConfig):
    """Settings of a recurrent network whose gates are projections of the input and of the hidden state.

    Args:
      expand: width of the hidden state over the model width.
      heads: diagonal blocks of the recurrent matrices; those of the papers have one.
      short_conv: width of a causal filter on the input; 0: none.
    """

    expand: float = 1.0
    heads: int = 1
    short_conv: int = 0

    GATES: ClassVar[int]
    VECTORS: ClassVar[int]
    """How many vectors the state is."""

    def width(self, dim: int) -> int:
        """The width of the hidden state."""
        width = round(self.expand * dim)
        if width % self.heads:
            raise ValueError(f"{type(self).__name__}: a hidden state of {width} is no multiple of heads={self.heads}")
        return width

    def param_count(self, dim: int) -> int:
        """The number of parameters: the filter, the projections of input and hidden state, biases, and the way back."""
        D = self.width(dim)
        return conv_params(self.short_conv, dim) + self.GATES * D * (dim + D // self.heads + 1) + D * dim

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        D = self.width(dim)
        projections = flops.projection(dim, self.GATES * D) + flops.projection(D, dim)
        recurrence = flops.recurrent(self.heads, D // self.heads, self.GATES, ARITHMETIC)
        return flops.short_conv(self.short_conv, dim) + projections + recurrence

    def state_bytes(self, dim: int, T: int) -> int:
        """The state and the filter's tail."""
        return 4 * self.VECTORS * self.width(dim) + conv_bytes(self.short_conv, dim)


def recurrent(keys: Keys, heads: int, gates: int, head: int) -> Float[Array, "H G D D"]:
    """Recurrent matrices, uniform in +-1 / sqrt(inputs), as PyTorch's."""
    return uniform_within(head**-0.5)(keys("recurrent"), (heads, gates, head, head), jnp.float32)
