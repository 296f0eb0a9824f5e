"""mLSTM as in xLSTM 7B: no up-projection and no filter, the channel mixer after it does that work."""

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
from .parts import GroupNorm, Keys, ShortConv, conv_bytes, conv_params, dense


@dataclass(frozen=True)
class MLSTMLargeConfig(MixerConfig):
    """Settings of ``MLSTMLarge``.

    Args:
      heads: heads, which divide the model width.
      keys: width of a head's keys over that of its values.
      cap: c where the gates' pre-activations are ``c tanh(. / c)``.
      short_conv: width of a causal filter on the input; 0: none.
      norm_eps: epsilon of the output norm.
    """

    heads: int = 8
    keys: float = 0.5
    cap: float = 15.0
    short_conv: int = 0
    norm_eps: float = 1e-6

    def sizes(self, dim: int) -> tuple[int, int]:
        """The widths of a head's keys and values."""
        if dim % self.heads:
            raise ValueError(f"MLSTMLargeConfig: the model width {dim} is no multiple of heads={self.heads}")
        return round(self.keys * (dim // self.heads)), dim // self.heads

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "MLSTMLarge":
        """Builds the mixer."""
        return MLSTMLarge(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        K, _ = self.sizes(dim)
        return (
            dim * (2 * self.heads * K + 3 * dim) + 2 * self.heads * (dim + 1) + dim + conv_params(self.short_conv, dim)
        )

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        K, V = self.sizes(dim)
        projections = flops.projection(dim, 2 * self.heads * (K + 1) + 3 * dim)
        return projections + flops.short_conv(self.short_conv, dim) + flops.mlstm(self.heads, K, V)

    def state_bytes(self, dim: int, T: int) -> int:
        """The memory, its normaliser and unit, and the filter's tail."""
        K, V = self.sizes(dim)
        return 4 * self.heads * (K * V + K + 1) + conv_bytes(self.short_conv, dim)


class MLSTMLargeCache(NamedTuple):
    """What ``MLSTMLarge`` keeps: the state of ``kernels.mlstm``, and the filter's tail."""

    memory: Float[Array, "B H K V"]
    norm: Float[Array, "B H K"]
    unit: Float[Array, "B H"]
    tail: Float[Array, "B tail D"]


class MLSTMLarge(Mixer):
    """The mLSTM of xLSTM 7B.

    ``q, k, v, o`` are projections of x, the gates' pre-activations ``i, f = c tanh((W_g x + b_g) / c)``, one a head;
    ``h`` by ``kernels.mlstm``; ``y = W_o [norm(h) * sigmoid(o)]``, the norm per head.

    Only the mixer: no norm before it, no residual. As in the code of ``transformers``, the projections start with
    variance 2 / (5 dim), W_o with standard deviation 2 / (depth sqrt(dim)), W_g at zero, b_g at -10 for i and evenly
    spaced in [3, 6] for f.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: the number of layers, for the initial scale of W_o.
      dtype: what products compute in; gates, memory and norm are float32.
      rngs: the key of the parameters.

    Source: Beck et al. (2025), xLSTM 7B, arXiv 2503.13427; github.com/NX-AI/xlstm.
    """

    def __init__(
        self,
        dim: int,
        config: MLSTMLargeConfig = MLSTMLargeConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys, small, H = Keys(rngs), normal((2 / (5 * dim)) ** 0.5), config.heads
        self.config, (self.K, self.V) = config, config.sizes(dim)
        self.conv = ShortConv(keys, "conv", config.short_conv, dim)
        self.q, self.k = (dense(keys, name, dim, H * self.K, dtype=dtype, init=small) for name in "qk")
        self.v, self.o = (dense(keys, name, dim, dim, dtype=dtype, init=small) for name in "vo")
        self.gates = dense(keys, "gates", dim, 2 * H, dtype=dtype, init=zeros)
        self.gate_bias = nnx.Param(jnp.concatenate([jnp.full(H, -10.0), jnp.linspace(3.0, 6.0, H)]))
        self.norm = GroupNorm(dim, groups=H, eps=config.norm_eps, bias=False)
        self.out = dense(keys, "out", dim, dim, dtype=dtype, init=normal(2 / (depth * dim**0.5)))

    def init_cache(self, batch: int, max_len: int) -> MLSTMLargeCache:
        """The empty memory."""
        norm = jnp.zeros((batch, self.config.heads, self.K), jnp.float32)
        memory = jnp.zeros((*norm.shape, self.V), jnp.float32)
        return MLSTMLargeCache(memory, norm, norm[..., 0], self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: MLSTMLargeCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], MLSTMLargeCache]:
        """Runs the T next tokens from the cached memory."""
        x, tail = self.conv(x, cache.tail, segment_ids)
        q, k, v = (rearrange(z, "B T (H K) -> B T H K", H=self.config.heads) for z in (self.q(x), self.k(x), self.v(x)))
        cap = self.config.cap
        gates = cap * jnp.tanh((self.gates(x).astype(jnp.float32) + self.gate_bias) / cap)
        i, f = jnp.split(gates, 2, axis=-1)
        state = (cache.memory, cache.norm, cache.unit)
        h, state = mlstm(q, k, v, i, f, initial_state=state, segment_ids=segment_ids)
        h = rearrange(h.astype(jnp.float32), "B T H V -> B T (H V)")
        y = self.norm(h) * jax.nn.sigmoid(self.o(x).astype(jnp.float32))
        return self.out(y), MLSTMLargeCache(*state, tail)
