"""TTT-Linear: the state is a linear map that learns, a gradient step per block of tokens, to name values from keys."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels import ttt_linear
from ..kernels.ttt_linear import State, places
from . import flops
from .base import Mixer, MixerConfig
from .parts import Keys, ShortConv, conv_bytes, conv_params, dense, head_count, rope


@dataclass(frozen=True)
class TTTLinearConfig(MixerConfig):
    """Settings of ``TTTLinear``; the defaults are the official code's.

    Args:
      heads: heads; None: as many as fill the model width.
      head_dim: width of a head (K).
      block: M, tokens that share one gradient step.
      step_size: of that step, over ``head_dim``, before the learned factor in (0, 1).
      rope_base: of the rotary positions within a block.
      short_conv: width of the causal filters that make q and k of one projection; 0: a projection each.
    """

    heads: int | None = None
    head_dim: int = 64
    block: int = 16
    step_size: float = 1.0
    rope_base: float = 10_000.0
    short_conv: int = 4

    def sizes(self, dim: int) -> tuple[int, int]:
        """The number of heads and the width of all heads."""
        heads = head_count(self.heads, dim, self.head_dim)
        return heads, heads * self.head_dim

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "TTTLinear":
        """Builds the mixer."""
        return TTTLinear(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        heads, inner = self.sizes(dim)
        projections = dim * ((4 if self.short_conv else 5) * inner + heads) + heads
        convs = 2 * conv_params(self.short_conv, inner, bias=True)
        return projections + convs + self.block + inner * (self.head_dim + 5)

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        heads, inner = self.sizes(dim)
        outputs = (3 if self.short_conv else 4) * inner + heads
        projections = flops.projection(dim, outputs) + flops.projection(inner, dim)
        return projections + 2 * flops.short_conv(self.short_conv, inner) + flops.ttt_linear(heads, self.head_dim)

    def state_bytes(self, dim: int, T: int) -> int:
        """The map, the gradient of its open block, the place in it, and the filters' tails."""
        _, inner = self.sizes(dim)
        return 4 * (2 * inner * (self.head_dim + 1) + 1) + 2 * conv_bytes(self.short_conv, inner)


class TTTLinearCache(NamedTuple):
    """What ``TTTLinear`` keeps."""

    state: State
    tails: tuple[Float[Array, "B tail D"], Float[Array, "B tail D"]]
    """Of the filters of q and k."""


class TTTLinear(Mixer):
    """The TTT-Linear mixer.

    q and k are one projection after a short filter each, turned by rotary positions within their block of M tokens;
    ``eta = step_size sigmoid(W_e x + b_e) / K`` is each token's step size and ``s_p = max(0, 1 / (p + 1) + offset_p)``
    the factor of place p. Per head, the map ``z = k W + c`` learns to make ``LN(z)`` of k into ``v - k`` by one step of
    gradient descent a block, with all gradients taken at the W that the block starts with; a token sees the gradients
    of its block up to its own: ``o_t = q_t + LN(q_t (W - s_p G_t) + c - s_p e_t)``, as ``kernels.ttt_linear`` says.
    ``y = W_o [norm(o) * gelu(W_g x)]``, norm being a layer normalisation over all heads.

    Only the mixer: no norm before it, no residual. As in the official code, W starts normal with a standard deviation
    of 0.02, c and the offsets at 0; filters and their biases start as ``parts`` says and at 0.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; step sizes, the map and norms are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Sun et al. (2024), Learning to (Learn at Test Time): RNNs with Expressive Hidden States, arXiv 2407.04620;
    github.com/test-time-training/ttt-lm-jax.
    """

    def __init__(
        self,
        dim: int,
        config: TTTLinearConfig = TTTLinearConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys = Keys(rngs)
        self.config = config
        self.heads, self.inner = config.sizes(dim)
        H, K, width, zeros = self.heads, config.head_dim, config.short_conv, jax.nn.initializers.zeros
        self.query = dense(keys, "query", dim, self.inner, dtype=dtype)
        self.key = None if width else dense(keys, "key", dim, self.inner, dtype=dtype)
        self.conv_q = ShortConv(keys, "conv_q", width, self.inner, bias_init=zeros)
        self.conv_k = ShortConv(keys, "conv_k", width, self.inner, bias_init=zeros)
        self.value = dense(keys, "value", dim, self.inner, dtype=dtype)
        self.eta = dense(keys, "eta", dim, H, dtype=dtype, bias=True)
        self.offset = nnx.Param(jnp.zeros(config.block, jnp.float32))
        self.W = nnx.Param(0.02 * jax.random.normal(keys("W"), (H, K, K), jnp.float32))
        self.c = nnx.Param(jnp.zeros((H, K), jnp.float32))
        self.scale = nnx.Param(jnp.ones((H, K), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((H, K), jnp.float32))
        self.norm = nnx.LayerNorm(self.inner, epsilon=1e-6, param_dtype=jnp.float32, rngs=keys.rngs("norm"))
        self.gate = dense(keys, "gate", dim, self.inner, dtype=dtype)
        self.out = dense(keys, "out", self.inner, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> TTTLinearCache:
        """The map as it starts."""
        H, K = self.heads, self.config.head_dim
        matrix, vector = jnp.zeros((batch, H, K, K), jnp.float32), jnp.zeros((batch, H, K), jnp.float32)
        state = matrix, vector, matrix, vector, jnp.zeros(batch, jnp.float32)
        return TTTLinearCache(state, (self.conv_q.init_tail(batch), self.conv_k.init_tail(batch)))

    def prefill(
        self, x: Float[Array, "B T D"], cache: TTTLinearCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], TTTLinearCache]:
        """Runs the T next tokens from the cached map."""
        config, T = self.config, x.shape[1]
        q = self.query(x)
        q, q_tail, k, k_tail = (
            *self.conv_q(q, cache.tails[0], segment_ids),
            *self.conv_k(q if self.key is None else self.key(x), cache.tails[1], segment_ids),
        )
        q, k, v = (rearrange(z, "B T (H K) -> B T H K", H=self.heads) for z in (q, k, self.value(x)))
        place = places(cache.state[4], T, config.block, segment_ids)[0].astype(jnp.int32)
        q, k = rope(q, place, config.rope_base), rope(k, place, config.rope_base)
        eta = jax.nn.sigmoid(self.eta(x).astype(jnp.float32)) * (config.step_size / config.head_dim)
        schedule = jnp.maximum(1 / jnp.arange(1, config.block + 1) + self.offset, 0)
        params = schedule, self.W[...], self.c[...], self.scale[...], self.bias[...]
        y, state = ttt_linear(q, k, v, eta, *params, initial_state=cache.state, segment_ids=segment_ids)
        y = self.norm(rearrange(y, "B T H K -> B T (H K)").astype(jnp.float32))
        y = y * jax.nn.gelu(self.gate(x).astype(jnp.float32))
        return self.out(y.astype(x.dtype)), TTTLinearCache(state, (q_tail, k_tail))
