"""RWKV-4: time mixing by a mean of past values whose weights fall with time, and rise with the exponential of a key."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels import linear_scan
from ..kernels.segments import segments
from . import flops
from .base import Mixer, MixerConfig
from .parts import Keys, dense, token_shift
from .rwkv6 import shifted_share

NOTHING = -1e30
"""The logarithm of a weight that is none, and that the longest sequence cannot add up to an infinity."""


@dataclass(frozen=True)
class RWKV4Config(MixerConfig):
    """Settings of ``RWKV4``: there are none."""

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "RWKV4":
        """Builds the mixer."""
        return RWKV4(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        return 4 * dim * dim + 5 * dim

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        return 4 * flops.projection(dim, dim) + flops.linear_scan(2 * dim)

    def state_bytes(self, dim: int, T: int) -> int:
        """Two sums, the logarithm of their unit, and the last token."""
        return 4 * 4 * dim


class RWKV4Cache(NamedTuple):
    """What ``RWKV4`` keeps: the sums of weighted values, and of weights, over exp(``peak``); and the last token."""

    sums: Float[Array, "B 2*D"]
    peak: Float[Array, "B D"]
    last: Float[Array, "B 1 D"]


class RWKV4(Mixer):
    """RWKV-4's time mixing: ``y = W_o [sigmoid(W_r x_r) * wkv]``.

    In each channel, with ``w = exp(decay)``, ``k = W_k x_k`` and ``v = W_v x_v``, wkv is the mean of the values so far,
    ``v_t`` with the weight ``exp(u + k_t)`` and ``v_i`` before it with ``exp(k_i - (t - 1 - i) w)``. Receptance, key
    and value each read a mixture of two tokens, ``x_t + (x_{t-1} - x_t) * m``.

    The sums of the mean are kept in units of their largest term so far, since a key's exponential may be any number.

    Only the mixer: no norm before it, no residual; the shift is its short filter. It starts as in the official code:
    the mixtures m fall over the channels and with depth, the decays rise from -5 to 3, the bonus u is log 0.3 and
    zigzags by a half.

    Args:
      dim: model width.
      config: the settings.
      layer: the layer's number, from 0, for the initial values.
      depth: the number of layers, for the same.
      dtype: what products compute in; shifts and means are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Peng et al. (2023), RWKV, arXiv 2305.13048; github.com/BlinkDL/RWKV-LM.
    """

    def __init__(
        self,
        dim: int,
        config: RWKV4Config = RWKV4Config(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        draw = Keys(rngs)
        rise, fall = layer / max(depth - 1, 1), 1 - layer / depth
        steep, gentle = shifted_share(dim, fall), shifted_share(dim, 0.5 * fall)
        self.mix = nnx.Param(jnp.stack([steep, steep - 0.3 * rise, gentle]))
        channel = jnp.arange(dim, dtype=jnp.float32)
        self.decay = nnx.Param(-5 + 8 * (channel / max(dim - 1, 1)) ** (0.7 + 1.3 * rise))
        self.bonus = nnx.Param(jnp.log(0.3) + 0.5 * ((channel + 1) % 3 - 1))
        self.key = dense(draw, "key", dim, dim, dtype=dtype)
        self.value = dense(draw, "value", dim, dim, dtype=dtype)
        self.receptance = dense(draw, "receptance", dim, dim, dtype=dtype)
        self.out = dense(draw, "out", dim, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> RWKV4Cache:
        """Empty sums, after a token of zeros."""
        dim = self.decay.shape[0]
        zeros = lambda *shape: jnp.zeros((batch, *shape), jnp.float32)  # noqa: E731
        return RWKV4Cache(zeros(2 * dim), zeros(dim), zeros(1, dim))

    def prefill(
        self, x: Float[Array, "B T D"], cache: RWKV4Cache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], RWKV4Cache]:
        """Mixes the T next tokens after the cached sums."""
        x = x.astype(jnp.float32)
        previous, last = token_shift(x, cache.last, segment_ids)
        x_k, x_v, x_r = x + (previous - x) * self.mix[...][:, None, None]
        k, v = (project(z).astype(jnp.float32) for project, z in ((self.key, x_k), (self.value, x_v)))
        mean, sums, peak = self.means(k, v, cache, segment_ids)
        receptance = jax.nn.sigmoid(self.receptance(x_r).astype(jnp.float32))
        return self.out(receptance * mean), RWKV4Cache(sums, peak, last)

    def means(
        self, k: Float[Array, "B T D"], v: Float[Array, "B T D"], cache: RWKV4Cache, ids: Int[Array, "B T"] | None
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B 2*D"], Float[Array, "B D"]]:
        """The weighted mean at each token, and the next sums and their unit."""
        w = jnp.exp(self.decay[...])
        fall = jnp.broadcast_to(w, k.shape)
        if ids is not None:  # all is forgotten before a document's first token; padding forgets and adds nothing
            seg = segments(ids)
            first, valid = seg.first[..., None], seg.valid[..., None]
            fall, k = jnp.where(valid, jnp.where(first, -NOTHING, fall), 0.0), jnp.where(valid, k, NOTHING)
        _, weights = jnp.split(cache.sums, 2, axis=-1)
        start = jnp.where(weights > 0, cache.peak, NOTHING)
        peak = jax.lax.stop_gradient(largest(k, fall, start))
        left = jnp.concatenate([start[:, None], peak[:, :-1]], axis=1) - fall
        kept, added = jnp.exp(left - peak), jnp.exp(k - peak)
        twice = lambda z: jnp.concatenate([z, z], axis=-1)  # noqa: E731
        write = jnp.concatenate([added * v, added], axis=-1)
        after, sums = linear_scan(twice(kept), write, initial_state=cache.sums)
        past = jnp.concatenate([cache.sums[:, None], after[:, :-1]], axis=1)

        own = k + self.bonus[...] - w  # all a step later, when what is past has fallen
        top = jax.lax.stop_gradient(jnp.maximum(left, own))
        old, new = jnp.exp(left - top), jnp.exp(own - top)
        values, weights = jnp.split(twice(old) * past, 2, axis=-1)
        return (values + new * v) / (weights + new), sums, peak[:, -1]


def largest(k: Float[Array, "B T D"], fall: Float[Array, "B T D"], start: Float[Array, "B D"]) -> Float[Array, "B T D"]:
    """What is largest of the keys so far: ``m_t = max(m_{t-1} - fall_t, k_t)``, from m_0 = ``start``."""

    def joined(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        return a[0] + b[0], jnp.maximum(a[1] - b[0], b[1])

    k = k.at[:, 0].max(start - fall[:, 0])
    return jax.lax.associative_scan(joined, (fall, k), axis=1)[1]
