"""Lightning attention, as MiniMax-01 has it: linear attention whose heads forget at fixed rates, slower with depth."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels import gla
from . import flops
from .base import Constant, Mixer, MixerConfig
from .parts import Keys, RMSNorm, ShortConv, conv_bytes, conv_params, dense, head_count

EPSILON = 1e-5
"""Keeps the last layer's decay away from none, and the first's defined where it is also the last."""


@dataclass(frozen=True)
class LightningConfig(MixerConfig):
    """Settings of ``Lightning``.

    Args:
      heads: heads; None: as many as fill the model width.
      head_dim: width of a head's keys and values.
      short_conv: width of a causal filter on q, k and v, before their SiLU; 0: SiLU alone.
    """

    heads: int | None = None
    head_dim: int = 128
    short_conv: int = 0

    def sizes(self, dim: int) -> tuple[int, int]:
        """The number of heads, and the width of all heads."""
        heads = head_count(self.heads, dim, self.head_dim)
        return heads, heads * self.head_dim

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "Lightning":
        """Builds the mixer."""
        return Lightning(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        _, width = self.sizes(dim)
        return 5 * dim * width + conv_params(self.short_conv, 3 * width) + width

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        heads, width = self.sizes(dim)
        conv = flops.short_conv(self.short_conv, 3 * width)
        return 5 * flops.projection(dim, width) + conv + flops.gla(heads, self.head_dim, self.head_dim)

    def state_bytes(self, dim: int, T: int) -> int:
        """The state and the filter's tail."""
        _, width = self.sizes(dim)
        return 4 * width * self.head_dim + conv_bytes(self.short_conv, 3 * width)


class LightningCache(NamedTuple):
    """What ``Lightning`` keeps."""

    state: Float[Array, "B H K V"]
    tail: Float[Array, "B tail D"]


class Lightning(Mixer):
    """The lightning attention mixer.

    ``q, k, v = silu(W x)``; ``S_t = exp(g) S_{t-1} + k_t v_t^T``, ``o_t = S_t^T q_t``, where head h = 1..H of layer
    l = 0..L-1 has ``g = -2^(-8h/H) (1 - l / (L - 1 + 1e-5) + 1e-5)``; ``y = W_o [sigmoid(W_g x) * norm(o)]``, the norm
    over all heads together.

    Only the mixer: no norm before it, no residual. As MiniMax's code in ``transformers`` has it.

    Args:
      dim: model width.
      config: the settings.
      layer: the layer's number, from 0, for its decays.
      depth: the number of layers, for the same.
      dtype: what products compute in; decays and the norm are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: MiniMax (2025), MiniMax-01, arXiv 2501.08313; Qin et al. (2024), Lightning Attention-2, arXiv 2401.04658;
    github.com/huggingface/transformers.
    """

    def __init__(
        self,
        dim: int,
        config: LightningConfig = LightningConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        draw = Keys(rngs)
        self.heads, self.width = config.sizes(dim)
        self.qkv = dense(draw, "qkv", dim, 3 * self.width, dtype=dtype)
        self.conv = ShortConv(draw, "conv", config.short_conv, 3 * self.width, activation="silu")
        rates = jnp.exp2(-8 / self.heads * jnp.arange(1, self.heads + 1, dtype=jnp.float32))
        # 1 - l / (L - 1 + EPSILON) on one denominator, where nothing cancels.
        self.decay = Constant(-rates * ((depth - 1 - layer + EPSILON) / (depth - 1 + EPSILON) + EPSILON))
        self.gate = dense(draw, "gate", dim, self.width, dtype=dtype)
        self.norm = RMSNorm(self.width, eps=1e-6)
        self.out = dense(draw, "out", self.width, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> LightningCache:
        """The zero state."""
        head_dim = self.width // self.heads
        state = jnp.zeros((batch, self.heads, head_dim, head_dim), jnp.float32)
        return LightningCache(state, self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: LightningCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], LightningCache]:
        """Runs the T next tokens from the cached state."""
        qkv, tail = self.conv(self.qkv(x), cache.tail, segment_ids)
        q, k, v = (rearrange(z, "B T (H K) -> B T H K", H=self.heads) for z in jnp.split(qkv, 3, axis=-1))
        g = self.decay[...]
        y, state = gla(q, k, v, g, scale=1.0, initial_state=cache.state, segment_ids=segment_ids)
        y = self.norm(rearrange(y.astype(jnp.float32), "B T H V -> B T (H V)"))
        return self.out(y * jax.nn.sigmoid(self.gate(x).astype(jnp.float32))), LightningCache(state, tail)
