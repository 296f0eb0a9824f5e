"""mLSTM: the block of xLSTM with a matrix memory, between an up- and a down-projection."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.nn.initializers import normal, zeros
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels import mlstm
from . import flops
from .base import Mixer, MixerConfig
from .parts import GroupNorm, Keys, ShortConv, conv_bytes, conv_params, dense, projected, uniform_within
from .rg_lru import BlockDiagonal


@dataclass(frozen=True)
class MLSTMConfig(MixerConfig):
    """Settings of ``MLSTM``.

    Args:
      heads: heads, which divide the inner width.
      expand: inner width over the model width.
      block: width of a diagonal block of the maps to q, k and v.
      short_conv: width of the causal filter, and SiLU, before q and k; 0: neither.
    """

    heads: int = 4
    expand: float = 2.0
    block: int = 4
    short_conv: int = 4

    def width(self, dim: int) -> int:
        """The inner width."""
        width = round(self.expand * dim)
        if width % self.heads or width % self.block:
            raise ValueError(
                f"MLSTMConfig: an inner width of {width} is no multiple of heads={self.heads} and of block={self.block}"
            )
        return width

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "MLSTM":
        """Builds the mixer."""
        return MLSTM(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        width = self.width(dim)
        gates = 2 * self.heads * (3 * width + 1)
        conv = conv_params(self.short_conv, width, bias=True)
        return 3 * dim * width + conv + 3 * width * self.block + gates + 2 * width

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        width = self.width(dim)
        projections = 3 * flops.projection(dim, width) + 3 * flops.projection(self.block, width)
        gates, conv = flops.projection(3 * width, 2 * self.heads), flops.short_conv(self.short_conv, width)
        head = width // self.heads
        return projections + gates + conv + flops.mlstm(self.heads, head, head)

    def state_bytes(self, dim: int, T: int) -> int:
        """The memory, its normaliser and unit, and the filter's tail."""
        width = self.width(dim)
        head = width // self.heads
        return 4 * self.heads * (head * head + head + 1) + conv_bytes(self.short_conv, width)


class MLSTMCache(NamedTuple):
    """What ``MLSTM`` keeps: the state of ``kernels.mlstm``, and the filter's tail."""

    memory: Float[Array, "B H K V"]
    norm: Float[Array, "B H K"]
    unit: Float[Array, "B H"]
    tail: Float[Array, "B tail D"]


class MLSTM(Mixer):
    """The mLSTM block of xLSTM, with its projections.

    ``u, z = W_up x``; ``c = silu(conv(u))``; ``q = W_q c``, ``k = W_k c``, ``v = W_v u``, these three block-diagonal;
    the gates' pre-activations ``i, f = W_g [q, k, v] + b_g``, one a head; ``h`` by ``kernels.mlstm``;
    ``y = W_down [(norm(h) + skip * c) * silu(z)]``, the norm per head.

    Only the mixer: no norm before it, no residual. As in the official code, W_up and the maps to q, k and v start with
    variance 2 / (5 dim), W_down with standard deviation 2 / (depth sqrt(dim)), W_g at zero, b_g normal with deviation
    0.1 for i and evenly spaced in [3, 6] for f, the skip at one.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: the number of layers, for the initial scale of W_down.
      dtype: what products compute in; gates, memory and norm are float32.
      rngs: the key of the parameters.

    Source: Beck et al. (2024), xLSTM, arXiv 2405.04517; github.com/NX-AI/xlstm.
    """

    def __init__(
        self,
        dim: int,
        config: MLSTMConfig = MLSTMConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys, width, small = Keys(rngs), config.width(dim), normal((2 / (5 * dim)) ** 0.5)
        self.config, H = config, config.heads
        self.up = dense(keys, "up", dim, 2 * width, dtype=dtype, init=small)
        bias, act = uniform_within(max(config.short_conv, 1) ** -0.5), "silu" if config.short_conv else None
        self.conv = ShortConv(keys, "conv", config.short_conv, width, activation=act, bias_init=bias)
        blocks = width // config.block
        self.q, self.k, self.v = (
            BlockDiagonal(keys, name, blocks, config.block, dtype=dtype, init=small, bias=False) for name in "qkv"
        )
        self.gates = dense(keys, "gates", 3 * width, 2 * H, dtype=dtype, init=zeros)
        i_bias, f_bias = normal(0.1)(keys("gate_bias"), (H,), jnp.float32), jnp.linspace(3.0, 6.0, H)
        self.gate_bias = nnx.Param(jnp.concatenate([i_bias, f_bias]))
        self.norm = GroupNorm(width, groups=H, bias=False)
        self.skip = nnx.Param(jnp.ones(width, jnp.float32))
        self.down = dense(keys, "down", width, dim, dtype=dtype, init=normal(2 / (depth * dim**0.5)))
        self.width = width

    def init_cache(self, batch: int, max_len: int) -> MLSTMCache:
        """The empty memory."""
        H, head = self.config.heads, self.width // self.config.heads
        norm = jnp.zeros((batch, H, head), jnp.float32)
        return MLSTMCache(jnp.zeros((batch, H, head, head)), norm, norm[..., 0], self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: MLSTMCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], MLSTMCache]:
        """Runs the T next tokens from the cached memory."""
        u, z = projected(self.up, x, 2)
        c, tail = self.conv(u, cache.tail, segment_ids)
        q, k, v = self.q(c), self.k(c), self.v(u)
        gates = self.gates(jnp.concatenate([q, k, v], -1)).astype(jnp.float32) + self.gate_bias
        q, k, v = (rearrange(a, "B T (H K) -> B T H K", H=self.config.heads).astype(x.dtype) for a in (q, k, v))
        i, f = jnp.split(gates, 2, axis=-1)
        state = (cache.memory, cache.norm, cache.unit)
        h, state = mlstm(q, k, v, i, f, initial_state=state, segment_ids=segment_ids)
        h = rearrange(h.astype(jnp.float32), "B T H V -> B T (H V)")
        y = (self.norm(h) + self.skip * c.astype(jnp.float32)) * jax.nn.silu(z.astype(jnp.float32))
        return self.down(y), MLSTMCache(*state, tail)
