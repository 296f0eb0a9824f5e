"""HGRN2: a gated linear RNN whose keys are what its forget gates let go, and whose gates have floors that rise."""

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
from .parts import Keys, LowerBounds, RMSNorm, ShortConv, conv_bytes, conv_params, dense, head_count

NONE = 1e-30
"""Stands for a floor of 0 where its logarithm is taken."""


@dataclass(frozen=True)
class HGRN2Config(MixerConfig):
    """Settings of ``HGRN2``.

    Args:
      heads: heads; None: as many as fill the model width.
      head_dim: width of a head's keys and values, the paper's expansion of the state.
      lower_bounds: the forget gates have learnt floors that rise with the layer; otherwise none.
      short_conv: width of a causal filter on the projections; 0: none.
    """

    heads: int | None = None
    head_dim: int = 128
    lower_bounds: bool = True
    short_conv: int = 0

    def sizes(self, dim: int) -> tuple[int, int]:
        """The number of heads, and the width of all heads."""
        heads = head_count(self.heads, dim, self.head_dim)
        return heads, heads * self.head_dim

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "HGRN2":
        """Builds the mixer."""
        return HGRN2(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        _, width = self.sizes(dim)
        return 4 * dim * width + conv_params(self.short_conv, 3 * width) + width + self.shared_count(dim, 1)

    def shared_count(self, dim: int, depth: int) -> int:
        """The number of parameters that set the floors of all layers."""
        return depth * self.sizes(dim)[1] if self.lower_bounds else 0

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        heads, width = self.sizes(dim)
        conv = flops.short_conv(self.short_conv, 3 * width)
        return 4 * flops.projection(dim, width) + conv + flops.gla(heads, self.head_dim, self.head_dim)

    def state_bytes(self, dim: int, T: int) -> int:
        """The state and the filter's tail."""
        _, width = self.sizes(dim)
        return 4 * width * self.head_dim + conv_bytes(self.short_conv, 3 * width)


class HGRN2Cache(NamedTuple):
    """What ``HGRN2`` keeps."""

    state: Float[Array, "B H K V"]
    tail: Float[Array, "B tail D"]


class HGRN2(Mixer):
    """The HGRN2 mixer.

    ``f_t = b + (1 - b) sigmoid(W_f x_t)``, ``S_t = Diag(f_t) S_{t-1} + (1 - f_t) (W_i x_t)^T``,
    ``o_t = S_t^T silu(W_q x_t) / sqrt(K)``; ``y = W_o norm(o)``, the norm over all heads together. The lower bounds b
    of all layers are learnt together (see ``parts.LowerBounds``); those of layer l of L start at l / L.

    Only the mixer: no norm before it, no residual.

    Args:
      dim: model width.
      config: the settings.
      layer: the layer's number, from 0, for its lower bound.
      depth: the number of layers, for the same.
      dtype: what products compute in; gates and the norm are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Qin et al. (2024), HGRN2, arXiv 2404.07904; github.com/fla-org/flash-linear-attention.
    """

    def __init__(
        self,
        dim: int,
        config: HGRN2Config = HGRN2Config(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        draw = Keys(rngs)
        self.heads, self.width = config.sizes(dim)
        self.qfi = dense(draw, "qfi", dim, 3 * self.width, dtype=dtype)
        self.conv = ShortConv(draw, "conv", config.short_conv, 3 * self.width)
        self.layer = Constant(jnp.asarray(layer, jnp.int32))
        self.shared = LowerBounds(depth, self.width) if config.lower_bounds else None
        self.norm = RMSNorm(self.width)
        self.out = dense(draw, "out", self.width, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> HGRN2Cache:
        """The zero state."""
        head_dim = self.width // self.heads
        state = jnp.zeros((batch, self.heads, head_dim, head_dim), jnp.float32)
        return HGRN2Cache(state, self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: HGRN2Cache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], HGRN2Cache]:
        """Runs the T next tokens from the cached state."""
        qfi, tail = self.conv(self.qfi(x), cache.tail, segment_ids)
        q, f, i = (rearrange(z, "B T (H K) -> B T H K", H=self.heads) for z in jnp.split(qfi, 3, axis=-1))
        g, k = jax.nn.log_sigmoid(f.astype(jnp.float32)), jax.nn.sigmoid(-f.astype(jnp.float32))
        if self.shared is not None:
            bound = rearrange(self.shared(self.layer[...]), "(H K) -> H K", H=self.heads)
            floor = jnp.log(jnp.maximum(bound, NONE))
            g, k = jnp.logaddexp(floor, jnp.log1p(-bound) + g), (1 - bound) * k  # k = 1 - exp(g): nothing cancels
        y, state = gla(jax.nn.silu(q), k, i, g, initial_state=cache.state, segment_ids=segment_ids)
        y = self.norm(rearrange(y.astype(jnp.float32), "B T H V -> B T (H V)"))
        return self.out(y), HGRN2Cache(state, tail)
