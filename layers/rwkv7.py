"""RWKV-7 (Goose): time mixing by a delta rule with a decay and a learning rate for each channel."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.nn.initializers import normal
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels import dplr
from . import flops
from .base import Constant, Mixer, MixerConfig, Side
from .parts import GroupNorm, Keys, dense, head_count, l2_norm, token_shift, uniform_within

FIRST_VALUES = "rwkv7_first_values"
"""The name under which layer 0 hands its values to the later layers."""
MIXED = (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)
"""How fast the mixtures fall over the channels: of receptance, decay, key, value, rate and gate."""
NORM_EPSILON = 64e-5


@dataclass(frozen=True)
class RWKV7Config(MixerConfig):
    """Settings of ``RWKV7``.

    Args:
      heads: heads; None: as many as fill the model width.
      head_dim: width of a head's keys and values.
      decay_rank: rank of the map to the decays.
      rate_rank: rank of the map to the learning rates.
      value_rank: rank of the map to the share of the first layer's values.
      gate_rank: rank of the map to the output gate.
    """

    side_written_once = True

    heads: int | None = None
    head_dim: int = 64
    decay_rank: int = 64
    rate_rank: int = 64
    value_rank: int = 32
    gate_rank: int = 128

    def sizes(self, dim: int) -> tuple[int, int]:
        """The number of heads, and their width together."""
        heads = head_count(self.heads, dim, self.head_dim)
        return heads, heads * self.head_dim

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "RWKV7":
        """Builds the mixer."""
        return RWKV7(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def side(self, dim: int) -> dict[str, int]:
        """The first layer's values."""
        return {FIRST_VALUES: self.sizes(dim)[1]}

    def param_count(self, dim: int) -> int:
        """The number of parameters, those of the first layer's value residual included, which it does not use."""
        _, width = self.sizes(dim)
        ranks = self.decay_rank + self.rate_rank + self.value_rank + self.gate_rank
        # A vector each: mixtures; biases of decay, rate and share; the keys' scales and the bonus; the norm.
        return 4 * dim * width + ranks * (dim + width) + len(MIXED) * dim + (3 + 3 + 2) * width

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        heads, width = self.sizes(dim)
        ranks = self.decay_rank + self.rate_rank + self.value_rank + self.gate_rank
        low_rank = flops.projection(dim, ranks) + flops.projection(ranks, width)
        return 4 * flops.projection(dim, width) + low_rank + flops.dplr(heads, self.head_dim, self.head_dim)

    def state_bytes(self, dim: int, T: int) -> int:
        """The state and the last token."""
        _, width = self.sizes(dim)
        return 4 * (width * self.head_dim + dim)


class RWKV7Cache(NamedTuple):
    """What ``RWKV7`` keeps."""

    state: Float[Array, "B H K V"]
    last: Float[Array, "B 1 D"]


class LowRank(nnx.Module):
    """``W_2 act(W_1 x)``, plus a bias that is given. W_1 is nearly zero at first, so that the bias says it all."""

    def __init__(self, keys: Keys, name: str, dim: int, rank: int, width: int, *, dtype: DTypeLike, bias=None):
        self.down = dense(keys, f"{name}.down", dim, rank, dtype=dtype, init=uniform_within(1e-4))
        self.up = dense(keys, f"{name}.up", rank, width, dtype=dtype, init=normal(0.1 * width**-0.5))
        self.bias = None if bias is None else nnx.Param(bias)

    def __call__(self, x: Float[Array, "B T D"], activation=lambda x: x) -> Float[Array, "B T _"]:
        """The map of x, in float32."""
        y = self.up(activation(self.down(x))).astype(jnp.float32)
        return y if self.bias is None else y + self.bias


class RWKV7(Mixer):
    """RWKV-7's time mixing.

    Receptance, decay, key, value, rate and gate each read a mixture of two tokens, ``x_t + (x_{t-1} - x_t) * m``.
    ``g = -exp(-1/2) sigmoid(w_0 + W_2 tanh(W_1 x_w))``, ``a = sigmoid(a_0 + A_2 A_1 x_a)``; the key is scaled to
    ``kappa = unit(k * k_k)`` to be erased and to ``k' = k * (1 + (a - 1) * k_a)`` to be written; from layer 1 on,
    ``v = v + (v_layer0 - v) * sigmoid(v_0 + V_2 V_1 x_v)``.
    ``S_t = Diag(exp g_t) S_{t-1} - (a_t * kappa_t) (kappa_t^T S_{t-1}) + k'_t v_t^T``, ``o_t = S_t^T r_t``;
    ``y = W_o [(norm(o) + (r . (k' * r_k)) v) * G_2 sigmoid(G_1 x_g)]``, a layer norm per head.

    Only the mixer: no norm before it, no residual; the shift is its short filter. Layer 0 hands its values on through
    the trunk's side; in a hybrid, some RWKV-7 layer is to be layer 0. A later layer called alone finds zeros there.

    The vectors start as in the official code: mixtures fall over the channels and with depth, decays rise over the
    channels. W_1, A_1, V_1 and G_1, zero there, are uniform in +-1e-4, or W_2 to G_2 would have no gradient; these are
    normal of the size of its orthogonal ones.

    Args:
      dim: model width.
      config: the settings.
      layer: the layer's number, from 0: for the initial values, and for whose values are handed on.
      depth: the number of layers, for the initial values.
      dtype: what products compute in; shifts, decays, rates and the norm are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Peng et al. (2025), RWKV-7 "Goose", arXiv 2503.14456; github.com/BlinkDL/RWKV-LM.
    """

    def __init__(
        self,
        dim: int,
        config: RWKV7Config = RWKV7Config(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        draw = Keys(rngs)
        self.heads, self.width = config.sizes(dim)
        self.first = Constant(jnp.asarray(layer == 0))
        rise, fall = layer / max(depth - 1, 1), 1 - layer / depth
        self.mix = nnx.Param(1 - (jnp.arange(dim) / dim) ** (jnp.array(MIXED)[:, None] * fall))

        position = jnp.arange(self.width) / max(self.width - 1, 1)
        within = jnp.linspace(-1, 1, config.head_dim) if config.head_dim > 1 else jnp.zeros(1)
        zigzag = jnp.tile(within * jnp.abs(within), self.heads)
        decay = -5.5 + 6 * position ** (1 + rise**0.3) + 2.5 * zigzag
        rate, share = -0.19 + 0.3 * zigzag + 0.4 * (position - 0.5), 0.73 - 0.4 * (position - 0.5)

        def low_rank(name: str, rank: int, bias: Float[Array, " D"] | None = None) -> LowRank:
            return LowRank(draw, name, dim, rank, self.width, dtype=dtype, bias=bias)

        self.decay = low_rank("decay", config.decay_rank, decay)
        self.rate = low_rank("rate", config.rate_rank, rate)
        self.residual = low_rank("residual", config.value_rank, share)
        self.gate = low_rank("gate", config.gate_rank)
        self.key_erase = nnx.Param(0.71 - 0.1 * (position - 0.5))
        self.key_write = nnx.Param(jnp.full(self.width, 1.02))
        self.bonus = nnx.Param(jnp.full((self.heads, config.head_dim), -0.04))
        self.receptance = dense(draw, "receptance", dim, self.width, dtype=dtype)
        self.key = dense(draw, "key", dim, self.width, dtype=dtype)
        self.value = dense(draw, "value", dim, self.width, dtype=dtype)
        self.norm = GroupNorm(self.width, groups=self.heads, eps=NORM_EPSILON)
        self.norm.scale[...] = jnp.full(self.width, ((layer + 1) / depth) ** 0.7, jnp.float32)
        self.out = dense(draw, "out", self.width, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> RWKV7Cache:
        """The zero state, after a token of zeros."""
        head_dim = self.width // self.heads
        state = jnp.zeros((batch, self.heads, head_dim, head_dim), jnp.float32)
        return RWKV7Cache(state, jnp.zeros((batch, 1, self.mix.shape[1]), jnp.float32))

    def prefill(
        self, x: Float[Array, "B T D"], cache: RWKV7Cache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], RWKV7Cache]:
        """Runs the T next tokens from the cached state; past layer 0, the first values are zero."""
        return self.prefill_side(x, cache, segment_ids, {})[:2]

    def prefill_side(
        self, x: Float[Array, "B T D"], cache: RWKV7Cache, segment_ids: Int[Array, "B T"] | None, side: Side
    ) -> tuple[Float[Array, "B T D"], RWKV7Cache, Side]:
        """Runs the T next tokens from the cached state; layer 0 hands on its values, others mix them in."""
        x = x.astype(jnp.float32)
        previous, last = token_shift(x, cache.last, segment_ids)
        x_r, x_w, x_k, x_v, x_a, x_g = x + (previous - x) * self.mix[...][:, None, None]
        r, k, v = self.receptance(x_r), self.key(x_k), self.value(x_v)
        first = jnp.where(self.first[...], v.astype(jnp.float32), side.get(FIRST_VALUES, 0.0))
        v = (v + (first - v) * jax.nn.sigmoid(self.residual(x_v))).astype(k.dtype)

        g = -jnp.exp(-0.5) * jax.nn.sigmoid(self.decay(x_w, jnp.tanh))
        rate = jax.nn.sigmoid(self.rate(x_a))
        kappa, k = k * self.key_erase, k * (1 + (rate - 1) * self.key_write)
        split = lambda z: rearrange(z, "B T (H K) -> B T H K", H=self.heads)  # noqa: E731
        r, k, v, g, rate = (split(z) for z in (r, k, v, g, rate))
        kappa = l2_norm(split(kappa), eps=1e-12)
        y, state = dplr(r, k, v, -kappa, rate * kappa, g, initial_state=cache.state, segment_ids=segment_ids)
        bonus = jnp.sum(r * k * self.bonus, axis=-1, keepdims=True) * v
        y, bonus = (rearrange(z.astype(jnp.float32), "B T H V -> B T (H V)") for z in (y, bonus))
        y = self.out((self.norm(y) + bonus) * self.gate(x_g, jax.nn.sigmoid))
        return y, RWKV7Cache(state, last), {**side, FIRST_VALUES: first}
