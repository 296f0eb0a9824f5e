"""HGRN: a complex linear recurrence whose forget gates are bounded from below, the more so the higher the layer."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels import linear_scan
from . import flops
from .base import Constant, Mixer, MixerConfig
from .parts import Keys, LowerBounds, ShortConv, conv_bytes, conv_params, dense


@dataclass(frozen=True)
class HGRNConfig(MixerConfig):
    """Settings of ``HGRN``.

    Args:
      expand: channels of the complex state over the model width.
      lower_bounds: the forget gates have learnt floors that rise with the layer; otherwise none.
      short_conv: width of a causal filter on the input; 0: none.
    """

    expand: float = 1.0
    lower_bounds: bool = True
    short_conv: int = 0

    def width(self, dim: int) -> int:
        """The number of complex channels."""
        return round(self.expand * dim)

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "HGRN":
        """Builds the mixer."""
        return HGRN(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        width = self.width(dim)
        projections = 5 * (dim + 1) * width + 2 * width * dim + dim
        return conv_params(self.short_conv, dim) + projections + width + 4 * width + self.shared_count(dim, 1)

    def shared_count(self, dim: int, depth: int) -> int:
        """The number of parameters that set the floors of all layers."""
        return depth * self.width(dim) if self.lower_bounds else 0

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token; a complex multiply-add is four real ones."""
        width = self.width(dim)
        projections = flops.projection(dim, 5 * width) + flops.projection(2 * width, dim)
        return flops.short_conv(self.short_conv, dim) + projections + flops.linear_scan(4 * width)

    def state_bytes(self, dim: int, T: int) -> int:
        """The state and the filter's tail."""
        return 8 * self.width(dim) + conv_bytes(self.short_conv, dim)


class HGRNCache(NamedTuple):
    """What ``HGRN`` keeps: the state's real and imaginary part, and the filter's tail."""

    real: Float[Array, "B D"]
    imaginary: Float[Array, "B D"]
    tail: Float[Array, "B tail C"]


class HGRN(Mixer):
    """The HGRN mixer.

    ``c_t = silu(W_cr x_t + b_cr) + 1j silu(W_ci x_t + b_ci)``, ``lambda_t = b + (1 - b) sigmoid(W_f x_t + b_f)``;
    ``h_t = lambda_t exp(1j theta) h_{t-1} + (1 - lambda_t) c_t``;
    ``y = W_o [norm([Re h, Im h]) * silu(W_g x + b_g)] + b_o``, a layer norm over all. The lower bounds b of all layers
    are learnt together (see ``parts.LowerBounds``); those of layer l of L start at l / L.

    Only the mixer: no norm before it, no residual. As in the official code, theta, which is learnt, starts at
    ``10000^(-2 j / D)`` in channel j of D, and the norm stands before the gate (in the paper it follows it).

    Args:
      dim: model width.
      config: the settings.
      layer: which layer it is, for the lower bound.
      depth: the number of layers, likewise.
      dtype: what products compute in; gates, scan and norm are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Qin, Yang & Zhong (2023), Hierarchically Gated Recurrent Neural Network, arXiv 2311.04823;
    github.com/Doraemonzzz/hgru-pytorch.
    """

    def __init__(
        self,
        dim: int,
        config: HGRNConfig = HGRNConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys, width = Keys(rngs), config.width(dim)
        self.width = width
        self.layer = Constant(jnp.asarray(layer, jnp.int32))
        self.shared = LowerBounds(depth, width) if config.lower_bounds else None
        self.conv = ShortConv(keys, "conv", config.short_conv, dim)
        self.candidate = dense(keys, "candidate", dim, 2 * width, dtype=dtype, bias=True)
        self.forget = dense(keys, "forget", dim, width, dtype=dtype, bias=True)
        self.gate = dense(keys, "gate", dim, 2 * width, dtype=dtype, bias=True)
        self.theta = nnx.Param(jnp.asarray(1e4 ** (-2 / width * np.arange(width)), jnp.float32))
        self.norm = nnx.LayerNorm(2 * width, epsilon=1e-5, param_dtype=jnp.float32, rngs=keys.rngs("norm"))
        self.out = dense(keys, "out", 2 * width, dim, dtype=dtype, bias=True)

    def init_cache(self, batch: int, max_len: int) -> HGRNCache:
        """The zero state."""
        zero = jnp.zeros((batch, self.width), jnp.float32)
        return HGRNCache(zero, zero, self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: HGRNCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], HGRNCache]:
        """Runs the T next tokens from the cached state."""
        x, tail = self.conv(x, cache.tail, segment_ids)
        real, imaginary = jnp.split(jax.nn.silu(self.candidate(x).astype(jnp.float32)), 2, axis=-1)
        bound = 0.0 if self.shared is None else self.shared(self.layer[...])
        forgotten = (1 - bound) * jax.nn.sigmoid(-self.forget(x).astype(jnp.float32))
        theta = self.theta[...]
        h, state = linear_scan(
            (1 - forgotten) * jax.lax.complex(jnp.cos(theta), jnp.sin(theta)),
            forgotten * jax.lax.complex(real, imaginary),
            initial_state=jax.lax.complex(cache.real, cache.imaginary),
            segment_ids=segment_ids,
        )
        gate = jax.nn.silu(self.gate(x).astype(jnp.float32))
        y = self.out(self.norm(jnp.concatenate([h.real, h.imag], -1)) * gate)
        return y, HGRNCache(state.real, state.imag, tail)
