"""sLSTM: the layer of xLSTM with a scalar memory, whose gates read the hidden state of their head."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.nn.initializers import normal
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels import slstm
from . import flops
from .base import Mixer, MixerConfig
from .parts import GroupNorm, Keys, ShortConv, conv_bytes, conv_params, uniform_within
from .rg_lru import BlockDiagonal

GATES = "ifzo"


@dataclass(frozen=True)
class SLSTMConfig(MixerConfig):
    """Settings of ``SLSTM``.

    Args:
      heads: heads, which divide the model width; a gate reads the inputs and the hidden state of its own head.
      short_conv: width of the causal filter, and SiLU, before the input and the forget gate; 0: neither.
    """

    heads: int = 4
    short_conv: int = 4

    def head(self, dim: int) -> int:
        """The width of a head."""
        if dim % self.heads:
            raise ValueError(f"SLSTMConfig: the model width {dim} is no multiple of heads={self.heads}")
        return dim // self.heads

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "SLSTM":
        """Builds the mixer."""
        return SLSTM(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        return conv_params(self.short_conv, dim, bias=True) + 4 * dim * (2 * self.head(dim) + 1) + dim

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        inputs = 4 * flops.projection(self.head(dim), dim)
        return flops.short_conv(self.short_conv, dim) + inputs + flops.slstm(self.heads, self.head(dim))

    def state_bytes(self, dim: int, T: int) -> int:
        """Memory, normaliser, hidden state and unit, and the filter's tail."""
        return 4 * 4 * dim + conv_bytes(self.short_conv, dim)


class SLSTMCache(NamedTuple):
    """What ``SLSTM`` keeps: the state of ``kernels.slstm``, and the filter's tail."""

    memory: Float[Array, "B H D"]
    norm: Float[Array, "B H D"]
    hidden: Float[Array, "B H D"]
    unit: Float[Array, "B H D"]
    tail: Float[Array, "B tail C"]


class SLSTM(Mixer):
    """The sLSTM layer of xLSTM.

    ``c = silu(conv(x))``; pre-activations ``i = W_i c``, ``f = W_f c``, ``z = W_z x``, ``o = W_o x``, plus biases and
    ``R h_{t-1}``, all matrices block-diagonal over the heads; ``h`` by ``kernels.slstm``; ``y = norm(h)``, per head.

    Only the mixer: no norm before it, no residual, and not the gated channel mixer that follows it in xLSTM. As in the
    official code, W start with variance 2 / (5 dim), R at zero, the biases at zero but for f: of channel j of n in its
    head, in layer l of L, ``5 - 12 (j / (n - 1))^(0.3 + 1.3 l / (L - 1))``.

    Args:
      dim: model width.
      config: the settings.
      layer: which layer it is, for the biases of f.
      depth: the number of layers, likewise.
      dtype: what products of the inputs compute in; the recurrence and the norm are float32.
      rngs: the key of the parameters.

    Source: Beck et al. (2024), xLSTM, arXiv 2405.04517; github.com/NX-AI/xlstm.
    """

    def __init__(
        self,
        dim: int,
        config: SLSTMConfig = SLSTMConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys, H, n = Keys(rngs), config.heads, config.head(dim)
        self.heads = H
        bias, act = uniform_within(max(config.short_conv, 1) ** -0.5), "silu" if config.short_conv else None
        self.conv = ShortConv(keys, "conv", config.short_conv, dim, activation=act, bias_init=bias)
        small = normal((2 / (5 * dim)) ** 0.5)
        self.i, self.f, self.z, self.o = (
            BlockDiagonal(keys, gate, H, n, dtype=dtype, init=small, bias=False) for gate in GATES
        )
        self.recurrent = nnx.Param(jnp.zeros((H, 4, n, n), jnp.float32))
        power = 0.3 + 1.3 * layer / max(depth - 1, 1)
        forget = 5 - 12 * (jnp.arange(n) / max(n - 1, 1)) ** power
        self.bias = nnx.Param(jnp.zeros((H, 4, n), jnp.float32).at[:, GATES.index("f")].set(forget))
        self.norm = GroupNorm(dim, groups=H, bias=False)

    def init_cache(self, batch: int, max_len: int) -> SLSTMCache:
        """The empty memory."""
        H, _, n = self.bias.shape
        zero = jnp.zeros((batch, H, n), jnp.float32)
        return SLSTMCache(zero, zero, zero, zero, self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: SLSTMCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], SLSTMCache]:
        """Runs the T next tokens from the cached memory."""
        c, tail = self.conv(x, cache.tail, segment_ids)
        gates = jnp.stack([self.i(c), self.f(c), self.z(x), self.o(x)])
        gates = rearrange(gates, "G B T (H D) -> B T H G D", H=self.heads) + self.bias
        state = (cache.memory, cache.norm, cache.hidden, cache.unit)
        h, state = slstm(gates, self.recurrent[...], initial_state=state, segment_ids=segment_ids)
        h = rearrange(h.astype(jnp.float32), "B T H V -> B T (H V)")
        return self.norm(h).astype(x.dtype), SLSTMCache(*state, tail)
