"""Linear attention: softmax's exponential replaced by a product of features, of one of three kinds."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels import gla
from . import flops
from .base import Mixer, MixerConfig
from .parts import GroupNorm, Keys, RMSNorm, ShortConv, conv_bytes, conv_params, dense, head_count

EPSILON = 1e-6
"""Added to the sum of the weights."""


@dataclass(frozen=True)
class LinearAttentionConfig(MixerConfig):
    """Settings of ``LinearAttention``.

    Args:
      heads: heads; None: as many as make the values fill the model width.
      head_dim: width of a head's values (V).
      feature_dim: width of a head's q and k, from which the features are made; None: ``head_dim``.
      features: ``"elu"``, ``"taylor"`` (Based) or ``"square"`` (ReBased); see ``LinearAttention``.
      normalize: divide by the sum of the weights; otherwise an RMS norm of each head's output takes its place.
      short_conv: width of a causal filter on the projected q, k and v; 0: none.
    """

    heads: int | None = None
    head_dim: int = 64
    feature_dim: int | None = None
    features: Literal["elu", "taylor", "square"] = "elu"
    normalize: bool = True
    short_conv: int = 0

    def __post_init__(self):
        if self.features not in ("elu", "taylor", "square"):
            raise ValueError(f"linear_attention: there is no features={self.features!r}; choose elu, taylor or square")

    def sizes(self, dim: int) -> tuple[int, int, int]:
        """The number of heads, and the widths of q (or k) and of the values of all heads."""
        heads = head_count(self.heads, dim, self.head_dim)
        return heads, heads * (self.feature_dim or self.head_dim), heads * self.head_dim

    def state_sizes(self) -> tuple[int, int]:
        """K and V of a head's state: the number of features, and the values with the one whose sum normalises them."""
        d = self.feature_dim or self.head_dim
        features = {"elu": d, "taylor": 1 + d + d * (d + 1) // 2, "square": d * (d + 1) // 2}[self.features]
        return features, self.head_dim + self.normalize

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "LinearAttention":
        """Builds the mixer."""
        return LinearAttention(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        _, keys, values = self.sizes(dim)
        norms = (4 * keys if self.features == "square" else 0) + (0 if self.normalize else self.head_dim)
        return dim * (2 * keys + 2 * values) + conv_params(self.short_conv, 2 * keys + values) + norms

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        heads, keys, values = self.sizes(dim)
        projections = flops.projection(dim, 2 * keys + values) + flops.projection(values, dim)
        conv = flops.short_conv(self.short_conv, 2 * keys + values)
        return projections + conv + flops.gla(heads, *self.state_sizes())

    def state_bytes(self, dim: int, T: int) -> int:
        """The state and the filter's tail."""
        heads, keys, values = self.sizes(dim)
        K, V = self.state_sizes()
        return 4 * heads * K * V + conv_bytes(self.short_conv, 2 * keys + values)


class LinearAttentionCache(NamedTuple):
    """What ``LinearAttention`` keeps. The last column of the state, if it normalises, sums the keys' features."""

    state: Float[Array, "B H K V"]
    tail: Float[Array, "B tail D"]


class LinearAttention(Mixer):
    """The linear attention mixer: ``o_t = sum_j w_tj v_j / sum_j w_tj`` over j <= t, ``w_tj = f(q_t) . f(k_j)``.

    With d the width of q, the features f make the weights, which are never negative:

    - elu: ``f(x) = elu(x) + 1``.
    - taylor: ``w = 1 + s + s^2 / 2`` with ``s = q . k / sqrt(d)``, the exponential's series to second order (Based).
    - square: ``w = s^2``, with q and k layer-normed over all heads, so that the norm's scales and biases learn the
      quadratic (ReBased).

    ``y = W_o o``. Only the mixer: no norm before it, no residual.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; features and norms are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Katharopoulos, Vyas, Pappas & Fleuret (2020), Transformers are RNNs, arXiv 2006.16236; Arora et al. (2024),
    Based, arXiv 2402.18668, github.com/HazyResearch/based; Aksenov et al. (2024), ReBased, arXiv 2402.10644,
    github.com/corl-team/rebased.
    """

    def __init__(
        self,
        dim: int,
        config: LinearAttentionConfig = LinearAttentionConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        draw = Keys(rngs)
        self.config = config
        self.heads, self.keys, values = config.sizes(dim)
        channels = 2 * self.keys + values
        self.qkv = dense(draw, "qkv", dim, channels, dtype=dtype)
        self.conv = ShortConv(draw, "conv", config.short_conv, channels)
        learned = config.features == "square"
        self.q_norm = GroupNorm(self.keys) if learned else None
        self.k_norm = GroupNorm(self.keys) if learned else None
        self.norm = None if config.normalize else RMSNorm(config.head_dim)
        self.out = dense(draw, "out", values, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> LinearAttentionCache:
        """The zero state."""
        state = jnp.zeros((batch, self.heads, *self.config.state_sizes()), jnp.float32)
        return LinearAttentionCache(state, self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: LinearAttentionCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], LinearAttentionCache]:
        """Runs the T next tokens from the cached state."""
        qkv, tail = self.conv(self.qkv(x), cache.tail, segment_ids)
        q, k, v = jnp.split(qkv, [self.keys, 2 * self.keys], axis=-1)
        q, k = q.astype(jnp.float32), k.astype(jnp.float32)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (rearrange(z, "B T (H K) -> B T H K", H=self.heads) for z in (q, k, v))
        q, k = features(q, self.config.features), features(k, self.config.features)
        if self.config.normalize:
            v = jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)
        y, state = gla(q, k, v, scale=1.0, initial_state=cache.state, segment_ids=segment_ids)
        y = y.astype(jnp.float32)
        y = y[..., :-1] / (y[..., -1:] + EPSILON) if self.norm is None else self.norm(y)
        return self.out(rearrange(y, "B T H V -> B T (H V)")), LinearAttentionCache(state, tail)


def features(x: Float[Array, "B T H d"], kind: Literal["elu", "taylor", "square"]) -> Float[Array, "B T H K"]:
    """The features of q or k, whose inner products are the weights (see ``LinearAttention``)."""
    if kind == "elu":
        return jax.nn.elu(x) + 1
    d = x.shape[-1]
    x = x * d**-0.25
    # Each product x_i x_j once: the two of i != j are one feature of sqrt(2) times the size.
    products = jnp.concatenate([x[..., i : i + 1] * x[..., i:] for i in range(d)], axis=-1)
    weights = np.concatenate([[1.0] + [2**0.5] * (d - i - 1) for i in range(d)]).astype(np.float32)
    if kind == "square":
        return products * weights
    return jnp.concatenate([jnp.ones_like(x[..., :1]), x, products * (weights * 2**-0.5)], axis=-1)
