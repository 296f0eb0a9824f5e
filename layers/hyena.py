"""Hyena: long convolutions with implicit filters, between gates."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels import long_conv
from . import flops
from .base import Mixer, MixerConfig
from .parts import Keys, ShortConv, conv_bytes, conv_params, dense, uniform_within

SLOWEST, FASTEST, TARGET = 1.5, 0.3, 1e-2
"""Filter windows fall to ``TARGET`` over these multiples of the filter's length."""


@dataclass(frozen=True)
class HyenaConfig(MixerConfig):
    """Settings of ``Hyena``; the defaults are those of the released language model.

    Args:
      order: one more than the number of long convolutions.
      filter_len: lags at which filters are defined; inputs further back are forgotten.
      filter_hidden: hidden width of the network that gives the filters.
      filter_depth: its hidden layers after the first.
      filter_features: position features of a lag, an odd number.
      frequency: initial frequency of its sine activations.
      short_conv: width of the causal filter on all projections; 0: none.
    """

    order: int = 2
    filter_len: int = 2048
    filter_hidden: int = 64
    filter_depth: int = 2
    filter_features: int = 33
    frequency: float = 14.0
    short_conv: int = 3

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "Hyena":
        """Builds the mixer."""
        return Hyena(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        convolved, projected = (self.order - 1) * dim, (self.order + 1) * dim
        M = self.filter_hidden
        network = (self.filter_features + 1) * M + self.filter_depth * M * (M + 1) + M + M * convolved
        projections = dim * projected + projected + dim * dim + dim
        return projections + conv_params(self.short_conv, projected, bias=True) + network + convolved

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token: the convolutions as sums over the lags seen, the filters at one more lag."""
        convolved, projected = (self.order - 1) * dim, (self.order + 1) * dim
        M = self.filter_hidden
        network = flops.projection(self.filter_features + self.filter_depth * M + convolved, M)
        L = min(T, self.filter_len)
        seen = (L * (L + 1) / 2 + (T - L) * L) / T
        projections = flops.projection(dim, projected) + flops.projection(dim, dim)
        return projections + flops.short_conv(self.short_conv, projected) + network + 2.0 * convolved * seen

    def state_bytes(self, dim: int, T: int) -> int:
        """The past of the convolutions, their filters so far and how far that is, and the short filter's tail."""
        convolved, L = (self.order - 1) * dim, min(T, self.filter_len)
        return 4 * convolved * (2 * L - 1) + 4 + conv_bytes(self.short_conv, (self.order + 1) * dim)


class HyenaCache(NamedTuple):
    """What ``Hyena`` keeps. Filters depend on parameters alone: they are kept so that a step evaluates one lag."""

    past: Float[Array, "B past D"]
    filters: Float[Array, "B L D"]
    known: Int[Array, " B"]
    """The number of lags at which ``filters`` has been evaluated."""
    tail: Float[Array, "B tail C"]


class ImplicitFilter(nnx.Module):
    """Filters as a function of the lag: a network with sine activations on position features, times a falling window.

    Features of lag j are ``j / (L - 1)`` and the cosines and negative sines of ``2 pi f j / L`` for frequencies f from
    1e-4 to one less than their number. The windows fall exponentially, at rates spread evenly over the channels.
    """

    def __init__(self, keys: Keys, name: str, channels: int, config: HyenaConfig):
        M, features = config.filter_hidden, config.filter_features

        def uniform(part: str, shape: tuple[int, ...], inputs: int) -> nnx.Param:
            return nnx.Param(uniform_within(inputs**-0.5)(keys(f"{name}.{part}"), shape, jnp.float32))

        self.config = config
        self.first, self.first_bias = uniform("first", (features, M), features), uniform("first_bias", (M,), features)
        inner = config.filter_depth
        self.inner, self.inner_bias = uniform("inner", (inner, M, M), M), uniform("inner_bias", (inner, M), M)
        self.last = uniform("last", (M, channels), M)
        self.frequency = nnx.Param(jnp.full(M, config.frequency, jnp.float32))

    def __call__(self, lag: Int[Array, " L"]) -> Float[Array, "L D"]:
        """The filters at the lags given."""
        L, channels = self.config.filter_len, self.last.shape[1]
        bands = (self.config.filter_features - 1) // 2
        time = lag.astype(jnp.float32)[:, None] / (L - 1)
        angle = 2 * np.pi / L * lag[:, None] * np.linspace(1e-4, bands - 1, bands, dtype=np.float32)
        h = jnp.concatenate([time, jnp.cos(angle), -jnp.sin(angle)], axis=-1)
        weights = [(self.first[...], self.first_bias[...]), *zip(self.inner[...], self.inner_bias[...], strict=True)]
        for weight, bias in weights:
            h = jnp.sin(self.frequency * (jnp.matmul(h, weight, precision="highest") + bias))
        rates = -np.log(TARGET) * np.linspace(1 / SLOWEST, 1 / FASTEST, channels, dtype=np.float32)
        return jnp.matmul(h, self.last[...], precision="highest") * jnp.exp(-rates * time)


class Hyena(Mixer):
    """The Hyena mixer.

    ``x_0 .. x_{n-1}, v = conv(W u + b)`` with n the order; for i = n-1 .. 1, ``v = filter * (x_i v) + D (x_i v)``, a
    causal convolution over time with an ``ImplicitFilter``; ``y = W_o (x_0 v) + b_o``.

    A convolution of full memory has no state of constant size: the cache holds the inputs of the last ``filter_len``
    tokens, so that it grows up to that, and a step costs as many multiply-adds a channel.

    Only the mixer: no norm before it, no residual. As in the official code, the filter network starts uniform in
    +-``inputs ** -0.5``, as does the short filter with its bias, and D standard normal. That code also trains the
    position features; here they are fixed.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what projections compute in; filters and convolutions are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Poli et al. (2023), Hyena Hierarchy, arXiv 2302.10866; github.com/HazyResearch/safari.
    """

    def __init__(
        self,
        dim: int,
        config: HyenaConfig = HyenaConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys, width = Keys(rngs), config.short_conv
        self.config, self.convolved, projected = config, (config.order - 1) * dim, (config.order + 1) * dim
        self.in_proj = dense(keys, "in_proj", dim, projected, dtype=dtype, bias=True)
        bias_init = uniform_within(width**-0.5) if width else None
        self.conv = ShortConv(keys, "conv", width, projected, bias_init=bias_init)
        self.filter = ImplicitFilter(keys, "filter", self.convolved, config)
        self.D = nnx.Param(jax.random.normal(keys("D"), (config.order - 1, dim), jnp.float32))
        self.out = dense(keys, "out", dim, dim, dtype=dtype, bias=True)

    def init_cache(self, batch: int, max_len: int) -> HyenaCache:
        """No past, and room for ``max_len`` tokens or as many as filters reach."""
        L = min(max_len, self.config.filter_len)
        zeros = lambda length: jnp.zeros((batch, length, self.convolved), jnp.float32)  # noqa: E731
        return HyenaCache(zeros(max(L - 1, 0)), zeros(L), jnp.zeros(batch, jnp.int32), self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: HyenaCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], HyenaCache]:
        """Convolves the T next tokens after the cached ones."""
        (_, T, D), capacity = x.shape, cache.filters.shape[1]
        projected, tail = self.conv(self.in_proj(x), cache.tail, segment_ids)
        *gates, v = jnp.split(projected.astype(jnp.float32), self.config.order + 1, axis=-1)
        cache = cache._replace(tail=tail)
        if capacity == 0:
            filters, past = self.filter(jnp.arange(min(T, self.config.filter_len))), None
        else:
            cache = self.evaluate(cache, T)
            filters, past = cache.filters[0], cache.past
        pasts = []
        for i, gate in enumerate(reversed(gates[1:])):
            part = slice(i * D, (i + 1) * D)
            v = gate * v
            state = None if past is None else past[:, :, part]
            y, state = long_conv(v, filters[:, part], initial_state=state, segment_ids=segment_ids)
            v = y + self.D[i] * v
            pasts.append(state)
        if capacity:
            cache = cache._replace(past=jnp.concatenate(pasts, axis=-1))
        return self.out(gates[0] * v), cache

    def evaluate(self, cache: HyenaCache, T: int) -> HyenaCache:
        """Evaluates the filters as far as T more tokens ask: at one lag, or at all of them. Rows know equally many."""
        L = cache.filters.shape[1]
        if T > 1:
            filters = jnp.broadcast_to(self.filter(jnp.arange(L)), cache.filters.shape)
            return cache._replace(filters=filters, known=jnp.full_like(cache.known, L))
        lag = cache.known[:1]
        filters = cache.filters.at[:, lag].set(self.filter(lag), mode="drop")
        return cache._replace(filters=filters, known=jnp.minimum(cache.known + 1, L))
