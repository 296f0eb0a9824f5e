"""RWKV-6 (Finch): time mixing by a gated linear attention that shifts tokens by its input, and its channel mixing."""

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
from .base import Mixer, MixerConfig
from .parts import GroupNorm, Keys, dense, head_count, token_shift, uniform_within

MIXED = 5
"""What time mixing reads from shifted tokens, in this order: decay, key, value, receptance (the query), gate."""
NORM_EPSILON = 64e-5
"""The official code divides what it normalises by 8, and its epsilon is 1e-5."""


@dataclass(frozen=True)
class RWKV6Config(MixerConfig):
    """Settings of ``RWKV6``.

    Args:
      heads: heads; None: as many as fill the model width.
      head_dim: width of a head's keys and values.
      mix_rank: rank of the map from the input to each of the five shifts.
      decay_rank: rank of the map from the input to the decays.
    """

    heads: int | None = None
    head_dim: int = 64
    mix_rank: int = 32
    decay_rank: int = 64

    def sizes(self, dim: int) -> tuple[int, int]:
        """The number of heads, and the width of all heads."""
        heads = head_count(self.heads, dim, self.head_dim)
        return heads, heads * self.head_dim

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "RWKV6":
        """Builds the mixer."""
        return RWKV6(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        _, width = self.sizes(dim)
        shifts = dim * (1 + MIXED) + 2 * dim * MIXED * self.mix_rank
        decay = width + (dim + width) * self.decay_rank
        return 5 * dim * width + shifts + decay + 3 * width

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        heads, width = self.sizes(dim)
        shifts = 2 * flops.projection(dim, MIXED * self.mix_rank)
        decay = flops.projection(dim, self.decay_rank) + flops.projection(self.decay_rank, width)
        recurrence = flops.gla(heads, self.head_dim, self.head_dim)
        return 5 * flops.projection(dim, width) + shifts + decay + recurrence

    def state_bytes(self, dim: int, T: int) -> int:
        """The state and the last token."""
        _, width = self.sizes(dim)
        return 4 * (width * self.head_dim + dim)


class RWKV6Cache(NamedTuple):
    """What ``RWKV6`` keeps."""

    state: Float[Array, "B H K V"]
    last: Float[Array, "B 1 D"]


class RWKV6(Mixer):
    """RWKV-6's time mixing.

    With ``d_t = x_{t-1} - x_t``, each of decay, key, value, receptance and gate reads its own mixture of two tokens,
    ``x_t + d_t * (m + tanh((x_t + d_t * m_x) A) B)``. ``g = -exp(w + tanh(x_w C) E)``,
    ``o_t = (S_{t-1} + Diag(u) k_t v_t^T)^T r_t``, ``S_t = Diag(exp g_t) S_{t-1} + k_t v_t^T``;
    ``y = W_o [norm(o) * silu(W_g x_g)]``, a layer norm per head.

    Only the mixer: no norm before it, no residual; the shift is its short filter. It starts as in the official
    code: the mixtures m fall over the channels and with depth, the decays w rise from -6 to -1, the bonus u zigzags and
    grows with depth, B and E are uniform in +-0.01, the norm's scale is ((layer + 1) / depth)^0.7. A and C, now
    zero there, are uniform in +-1e-4 as they once were: at zero, B and E have no gradient.

    Args:
      dim: model width.
      config: the settings.
      layer: the layer's number, from 0, for the initial values.
      depth: the number of layers, for the same.
      dtype: what products compute in; shifts, decays and the norm are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Peng et al. (2024), Eagle and Finch, arXiv 2404.05892; github.com/BlinkDL/RWKV-LM.
    """

    def __init__(
        self,
        dim: int,
        config: RWKV6Config = RWKV6Config(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        draw = Keys(rngs)
        self.heads, self.width = config.sizes(dim)
        self.dtype = dtype
        rise, fall = layer / max(depth - 1, 1), 1 - layer / depth
        steep, gentle = shifted_share(dim, fall), shifted_share(dim, 0.5 * fall)
        self.mix_x = nnx.Param(steep)
        self.mix = nnx.Param(jnp.stack([steep, steep, steep - 0.3 * rise, gentle, gentle]))
        self.mix_in = dense(draw, "mix_in", dim, MIXED * config.mix_rank, dtype=dtype, init=uniform_within(1e-4))
        shape = (MIXED, config.mix_rank, dim)
        self.mix_out = nnx.Param(uniform_within(0.01)(draw("mix_out"), shape, jnp.float32))

        channel = jnp.arange(self.width, dtype=jnp.float32)
        position = channel / max(self.width - 1, 1)
        self.decay = nnx.Param(-6 + 5 * position ** (0.7 + 1.3 * rise))
        self.decay_in = dense(draw, "decay_in", dim, config.decay_rank, dtype=dtype, init=uniform_within(1e-4))
        self.decay_out = dense(draw, "decay_out", config.decay_rank, self.width, dtype=dtype, init=uniform_within(0.01))
        bonus = rise * (1 - position) + 0.1 * ((channel + 1) % 3 - 1)
        self.bonus = nnx.Param(rearrange(bonus, "(H K) -> H K", H=self.heads))

        self.key = dense(draw, "key", dim, self.width, dtype=dtype)
        self.value = dense(draw, "value", dim, self.width, dtype=dtype)
        self.receptance = dense(draw, "receptance", dim, self.width, dtype=dtype)
        self.gate = dense(draw, "gate", dim, self.width, dtype=dtype)
        self.norm = GroupNorm(self.width, groups=self.heads, eps=NORM_EPSILON)
        self.norm.scale[...] = jnp.full(self.width, ((layer + 1) / depth) ** 0.7, jnp.float32)
        self.out = dense(draw, "out", self.width, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> RWKV6Cache:
        """The zero state, after a token of zeros."""
        head_dim = self.width // self.heads
        state = jnp.zeros((batch, self.heads, head_dim, head_dim), jnp.float32)
        return RWKV6Cache(state, jnp.zeros((batch, 1, self.mix_x.shape[0]), jnp.float32))

    def prefill(
        self, x: Float[Array, "B T D"], cache: RWKV6Cache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], RWKV6Cache]:
        """Runs the T next tokens from the cached state."""
        x = x.astype(jnp.float32)
        previous, last = token_shift(x, cache.last, segment_ids)
        d = previous - x
        low = rearrange(jnp.tanh(self.mix_in(x + d * self.mix_x)), "B T (M R) -> M B T R", M=MIXED)
        mix = jnp.einsum("MBTR,MRD->MBTD", low, self.mix_out[...].astype(self.dtype)).astype(jnp.float32)
        x_w, x_k, x_v, x_r, x_g = x + d * (self.mix[...][:, None, None] + mix)

        decay = self.decay_out(jnp.tanh(self.decay_in(x_w))).astype(jnp.float32)
        g = -jnp.exp(self.decay[...] + decay)
        r, k, v = self.receptance(x_r), self.key(x_k), self.value(x_v)
        r, k, v, g = (rearrange(z, "B T (H K) -> B T H K", H=self.heads) for z in (r, k, v, g))
        y, state = gla(r, k, v, g, bonus=self.bonus[...], scale=1.0, initial_state=cache.state, segment_ids=segment_ids)
        y = self.norm(rearrange(y.astype(jnp.float32), "B T H V -> B T (H V)"))
        return self.out(y * jax.nn.silu(self.gate(x_g).astype(jnp.float32))), RWKV6Cache(state, last)


def shifted_share(dim: int, power: float | Array) -> Float[Array, " D"]:
    """How much of the token before each channel starts with, from all of it to nearly none: ``1 - (i / D)^power``."""
    return 1 - (jnp.arange(dim, dtype=jnp.float32) / dim) ** power
