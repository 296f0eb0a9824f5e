"""Griffin's recurrent block: a gated diagonal recurrence, the RG-LRU, between a short filter and a GELU branch."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from ..kernels import linear_scan
from ..kernels.segments import segments
from . import flops
from .base import Mixer, MixerConfig
from .parts import Initializer, Keys, ShortConv, conv_bytes, conv_params, dense, head_count

SHARPNESS = 8.0
"""c of the paper: the decay is ``exp(-c softplus(decay) r)``."""

MAX_ROOT_GRADIENT = 1000.0
"""The largest derivative of the root of 1 - a^2, which has none at a = 1."""


@dataclass(frozen=True)
class RGLRUConfig(MixerConfig):
    """Settings of ``RGLRU``.

    Args:
      heads: diagonal blocks of the gates; None: as many as fill the model width.
      head_dim: width of a block. The recurrence is ``heads * head_dim`` wide; the Griffin paper's is about 4/3 of the
        model width, RecurrentGemma's is equal to it.
      short_conv: width of the causal filter before the recurrence; 0: none.
    """

    heads: int | None = None
    head_dim: int = 256
    short_conv: int = 4

    def sizes(self, dim: int) -> tuple[int, int]:
        """The number of blocks, and the width of the recurrence."""
        heads = head_count(self.heads, dim, self.head_dim)
        return heads, heads * self.head_dim

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "RGLRU":
        """Builds the mixer."""
        return RGLRU(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        _, width = self.sizes(dim)
        projections = 3 * dim * width + 2 * width + dim
        gates = 2 * width * (self.head_dim + 1)
        return projections + gates + conv_params(self.short_conv, width, bias=True) + width

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        _, width = self.sizes(dim)
        gates = 2 * flops.projection(self.head_dim, width)
        conv = flops.short_conv(self.short_conv, width)
        return 3 * flops.projection(dim, width) + gates + conv + flops.linear_scan(width)

    def state_bytes(self, dim: int, T: int) -> int:
        """The state, whether it has begun, and the filter's tail."""
        _, width = self.sizes(dim)
        return 4 * width + 1 + conv_bytes(self.short_conv, width)


class RGLRUCache(NamedTuple):
    """What ``RGLRU`` keeps. ``begun`` says whether the document has had a token: its first enters unscaled."""

    state: Float[Array, "B D"]
    begun: Bool[Array, " B"]
    tail: Float[Array, "B tail D"]


class BlockDiagonal(nnx.Module):
    """A projection by a block-diagonal matrix, with bias unless told otherwise; variance 1 / inputs is its default."""

    def __init__(
        self,
        keys: Keys,
        name: str,
        heads: int,
        head_dim: int,
        *,
        dtype: DTypeLike,
        init: Initializer | None = None,
        bias: bool = True,
    ):
        init = init or jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal", batch_axis=0)
        self.kernel = nnx.Param(init(keys(f"{name}.kernel"), (heads, head_dim, head_dim), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((heads, head_dim), jnp.float32)) if bias else None
        self.dtype = dtype

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Projects each block of channels by its own matrix; returns float32."""
        x = rearrange(x.astype(self.dtype), "B T (H K) -> B T H K", H=self.kernel.shape[0])
        kernel = self.kernel[...].astype(self.dtype)
        y = jnp.einsum("BTHK,HKV->BTHV", x, kernel).astype(jnp.float32)
        return rearrange(y if self.bias is None else y + self.bias[...], "B T H V -> B T (H V)")


class RGLRU(Mixer):
    """Griffin's recurrent block, whole.

    ``u = conv(W_x x + b_x)``, ``r = sigmoid(gate_r(u))``, ``i = sigmoid(gate_i(u))``, both gates block-diagonal;
    ``a = exp(-8 softplus(decay) r)``, ``h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t u_t)``, but ``h = i u`` at a
    document's first token; ``y = W_o [h * gelu(W_y x + b_y)] + b_o``.

    Only the mixer: no norm before it, no residual. As in the official code, the derivative of the root is at most
    1000, ``exp(-softplus(decay))`` starts with its square uniform in [0.9^2, 0.999^2], the filter with variance
    0.01 / width, and W_o with variance 2 / (depth inputs).

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: the number of layers, for the initial scale of W_o.
      dtype: what products compute in; gates, decays and the scan are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: De et al. (2024), Griffin, arXiv 2402.19427; github.com/google-deepmind/recurrentgemma.
    """

    def __init__(
        self,
        dim: int,
        config: RGLRUConfig = RGLRUConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys = Keys(rngs)
        heads, self.width = config.sizes(dim)
        self.x = dense(keys, "x", dim, self.width, dtype=dtype, bias=True)
        self.y = dense(keys, "y", dim, self.width, dtype=dtype, bias=True)
        filter_init = jax.nn.initializers.variance_scaling(0.01, "fan_in", "normal")
        zeros = jax.nn.initializers.zeros
        self.conv = ShortConv(keys, "conv", config.short_conv, self.width, init=filter_init, bias_init=zeros)
        self.gate_r = BlockDiagonal(keys, "gate_r", heads, config.head_dim, dtype=dtype)
        self.gate_i = BlockDiagonal(keys, "gate_i", heads, config.head_dim, dtype=dtype)
        square = jax.random.uniform(keys("decay"), (self.width,), minval=0.9**2, maxval=0.999**2)
        self.decay = nnx.Param(jnp.log(jnp.expm1(-0.5 * jnp.log(square))))
        out_init = jax.nn.initializers.variance_scaling(2.0 / depth, "fan_in", "normal")
        self.out = dense(keys, "out", self.width, dim, dtype=dtype, init=out_init, bias=True)

    def init_cache(self, batch: int, max_len: int) -> RGLRUCache:
        """The zero state."""
        state = jnp.zeros((batch, self.width), jnp.float32)
        return RGLRUCache(state, jnp.zeros(batch, bool), self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: RGLRUCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], RGLRUCache]:
        """Runs the T next tokens from the cached state."""
        u, tail = self.conv(self.x(x), cache.tail, segment_ids)
        r, i = jax.nn.sigmoid(self.gate_r(u)), jax.nn.sigmoid(self.gate_i(u))
        log_a = -SHARPNESS * jax.nn.softplus(self.decay[...]) * r
        first, begun = document_starts(x.shape[:2], cache.begun, segment_ids)
        scale = jnp.where(first[..., None], 1.0, bounded_root(-jnp.expm1(2 * log_a)))
        h, state = linear_scan(
            jnp.exp(log_a), scale * i * u.astype(jnp.float32), initial_state=cache.state, segment_ids=segment_ids
        )
        gate = jax.nn.gelu(self.y(x).astype(jnp.float32), approximate=True)
        return self.out(h * gate), RGLRUCache(state, begun, tail)


def document_starts(
    shape: tuple[int, ...], begun: Bool[Array, " B"], segment_ids: Int[Array, "B T"] | None
) -> tuple[Bool[Array, "B T"], Bool[Array, " B"]]:
    """Marks each document's first token, and says whether the last document has begun by the end."""
    if segment_ids is None:
        opening = jnp.zeros(shape, bool).at[:, 0].set(~begun)
        return opening, jnp.ones_like(begun)
    seg = segments(segment_ids)
    opening = seg.valid & (jnp.cumsum(seg.valid, axis=1) == 1) & ~begun[:, None]
    return seg.first | opening, begun | jnp.any(seg.valid, axis=1)


@jax.custom_vjp
def bounded_root(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The square root, with a derivative of at most ``MAX_ROOT_GRADIENT``."""
    return jnp.sqrt(x)


def _bounded_root_forward(x):
    return jnp.sqrt(x), x


def _bounded_root_backward(x, cotangent):
    return (cotangent * jnp.minimum(0.5 * jax.lax.rsqrt(jnp.maximum(x, 1e-30)), MAX_ROOT_GRADIENT),)


bounded_root.defvjp(_bounded_root_forward, _bounded_root_backward)
