"""Mamba-3: Mamba-2 with a trapezoidal rule, a state that turns, and several inputs and outputs at once."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels import gla, linear_scan, short_conv
from . import flops
from .base import Mixer, MixerConfig
from .parts import (
    Keys,
    RMSNorm,
    ShortConv,
    conv_bytes,
    conv_params,
    dense,
    head_count,
    inverse_softplus_steps,
    projected,
)

LEAST_RATE = 1e-4
"""The slowest decay, per unit of dt."""


@dataclass(frozen=True)
class Mamba3Config(MixerConfig):
    """Settings of ``Mamba3``; the defaults are the official code's.

    Args:
      heads: heads of the inner width; None: as many as fill ``expand`` times the model width.
      head_dim: width of a head (V).
      state_dim: state size per channel (K).
      expand: inner width over model width, where ``heads`` is None.
      groups: heads in equal groups share B and C, but for their biases.
      rank: R, the inputs and outputs of a head per token: 1 is the paper's SISO, more its MIMO (there 4).
      rotated: the share of the state's channels that turn.
      short_conv: width of a causal filter on x, B and C; 0: none.
    """

    heads: int | None = None
    head_dim: int = 64
    state_dim: int = 128
    expand: int = 2
    groups: int = 1
    rank: int = 1
    rotated: float = 0.5
    short_conv: int = 0

    def sizes(self, dim: int) -> tuple[int, int, int, int]:
        """The number of heads, the inner width, the channels of x, B and C together, and the number of angles."""
        heads = head_count(self.heads, self.expand * dim, self.head_dim)
        if heads % self.groups:
            raise ValueError(f"mamba3: heads={heads} must be a multiple of groups={self.groups}")
        inner = heads * self.head_dim
        channels = inner + 2 * self.rank * self.groups * self.state_dim
        return heads, inner, channels, int(self.rotated * self.state_dim) // 2

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "Mamba3":
        """Builds the mixer."""
        return Mamba3(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        heads, inner, channels, angles = self.sizes(dim)
        projections = dim * (inner + channels + 3 * heads + angles) + inner * dim
        mimo = 3 * self.rank * inner if self.rank > 1 else 0
        biases = 2 * heads * self.rank * self.state_dim + 2 * self.state_dim
        return projections + conv_params(self.short_conv, channels) + biases + 2 * heads + mimo

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token.

        Besides R steps of the recurrence: the second write of the rule, and what outputs see of their own token.
        """
        heads, inner, channels, angles = self.sizes(dim)
        R, K, V = self.rank, self.state_dim, self.head_dim
        projections = flops.projection(dim, inner + channels + 3 * heads + angles) + flops.projection(inner, dim)
        own = 2.0 * heads * R * R * (K + V) + 2.0 * heads * R * K * V
        recurrence = R * flops.gla(heads, K, V) + flops.linear_scan(heads * angles)
        return projections + flops.short_conv(self.short_conv, channels) + recurrence + own

    def state_bytes(self, dim: int, T: int) -> int:
        """The state, its angles, the last token's keys and values, and the filter's tail."""
        heads, inner, channels, angles = self.sizes(dim)
        last = heads * self.rank * self.state_dim + inner
        return 4 * (inner * self.state_dim + heads * angles + last) + conv_bytes(self.short_conv, channels)


class Mamba3Cache(NamedTuple):
    """What ``Mamba3`` keeps."""

    state: Float[Array, "B H K V"]
    angle: Float[Array, "B HA"]
    """How far the state has turned, for each head and pair of channels."""
    k: Float[Array, "B R H K"]
    """The keys of the last token: half of its write waits for the next one."""
    x: Float[Array, "B H V"]
    tail: Float[Array, "B tail D"]


class Mamba3(Mixer):
    """The Mamba-3 mixer.

    ``z, x, B, C, dt, a, trap, phi = W_in u``; per head, with ``dt = softplus(dt + dt_bias)``,
    ``alpha = exp(-softplus(a) dt)`` and ``lambda = sigmoid(trap)``: pairs of channels of ``k = norm(B) + B_bias`` and
    ``q = norm(C) + C_bias`` are turned by the angles ``theta_t = theta_{t-1} + pi tanh(phi) dt``;
    ``S_t = alpha S_{t-1} + (1 - lambda) dt alpha k_{t-1} x_{t-1}^T + lambda dt k_t x_t^T``,
    ``o_t = S_t^T q_t + D x_t``; ``y = W_out (o * silu(z))``. With rank R there are R keys and R queries; the values are
    ``x * mimo_x[r]``, whose writes add up, the gates ``z * mimo_z[r]``, and the R outputs are summed by ``mimo_o[r]``.

    Only the mixer: no norm before it, no residual. As in the official code, softplus(dt_bias) starts log-uniform in
    [0.001, 0.1], the biases, D and mimo_z at 1, mimo_x and mimo_o at 1/R. Angle i turns channels i and i + A of the
    2 A rotated ones; the official SISO pairs neighbours, a permutation of the same weights.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; steps, decays and angles are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Lahoti, Li, Chen, Wang, Bick, Kolter, Dao & Gu (2026), Mamba-3, arXiv 2603.15569;
    github.com/state-spaces/mamba.
    """

    def __init__(
        self,
        dim: int,
        config: Mamba3Config = Mamba3Config(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys = Keys(rngs)
        self.config = config
        self.heads, self.inner, self.channels, self.angles = config.sizes(dim)
        H, R, K, V = self.heads, config.rank, config.state_dim, config.head_dim
        outputs = self.inner + self.channels + 3 * H + self.angles
        self.in_proj = dense(keys, "in_proj", dim, outputs, dtype=dtype)
        self.conv = ShortConv(keys, "conv", config.short_conv, self.channels)
        self.dt_bias = nnx.Param(inverse_softplus_steps(keys("dt_bias"), H))
        self.B_norm, self.C_norm = RMSNorm(K), RMSNorm(K)
        self.B_bias = nnx.Param(jnp.ones((R, H, K), jnp.float32))
        self.C_bias = nnx.Param(jnp.ones((R, H, K), jnp.float32))
        self.D = nnx.Param(jnp.ones(H, jnp.float32))
        mimo = lambda start: nnx.Param(jnp.full((R, H, V), start, jnp.float32)) if R > 1 else None  # noqa: E731
        self.mimo_x, self.mimo_z, self.mimo_o = mimo(1 / R), mimo(1.0), mimo(1 / R)
        self.out = dense(keys, "out", self.inner, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> Mamba3Cache:
        """The zero state."""
        H, R, K, V = self.heads, self.config.rank, self.config.state_dim, self.config.head_dim
        zeros = lambda *shape: jnp.zeros((batch, *shape), jnp.float32)  # noqa: E731
        return Mamba3Cache(
            zeros(H, K, V), zeros(H * self.angles), zeros(R, H, K), zeros(H, V), self.conv.init_tail(batch)
        )

    def prefill(
        self, x: Float[Array, "B T D"], cache: Mamba3Cache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], Mamba3Cache]:
        """Runs the T next tokens from the cached state."""
        H, R = self.heads, self.config.rank
        ends = np.cumsum([self.inner, self.channels, H, H, H]).tolist()
        z, xBC, dt, rate, trap, phi = projected(self.in_proj, x, ends)
        xBC, tail = self.conv(xBC, cache.tail, segment_ids)
        x, BC = jnp.split(xBC, [self.inner], axis=-1)
        x, z = (rearrange(a, "B T (H V) -> B T H V", H=H) for a in (x, z))
        B, C = rearrange(BC, "B T (two R G K) -> two B T R G K", two=2, R=R, G=self.config.groups)

        dt, rate, trap, phi = (a.astype(jnp.float32) for a in (dt, rate, trap, phi))
        dt = jax.nn.softplus(dt + self.dt_bias)
        g = -jnp.maximum(jax.nn.softplus(rate), LEAST_RATE) * dt
        now, later = jax.nn.sigmoid(trap) * dt, jax.nn.sigmoid(-trap) * dt
        turn = rearrange(jnp.pi * jnp.tanh(phi)[:, :, None] * dt[..., None], "B T H A -> B T (H A)")
        theta, angle = linear_scan(jnp.ones_like(turn), turn, initial_state=cache.angle, segment_ids=segment_ids)
        theta = rearrange(theta, "B T (H A) -> B T 1 H A", H=H)
        spread = lambda a: jnp.repeat(a.astype(jnp.float32), H // a.shape[3], axis=3)  # noqa: E731
        k = turned(spread(self.B_norm(B)) + self.B_bias, theta).astype(x.dtype)
        q = turned(spread(self.C_norm(C)) + self.C_bias, theta).astype(x.dtype)

        # Token j is written whole, with what the token after it will add; its own output takes that away again.
        due = following(later, segment_ids)
        first = edge(later, jnp.zeros_like(later[:, 0]), segment_ids, last=False)
        v, v_last = self._values(x), self._values(cache.x[:, None])[:, 0]
        state = cache.state + jnp.einsum("brhk,brhv->bhkv", first[:, None, :, None] * cache.k, v_last)
        weight = (now + due)[:, :, None, :, None]
        y, state = self._recur(q, k, (weight * v).astype(x.dtype), g, state, segment_ids)
        share = now[..., None, None] - (now + due)[..., None, None] * np.tril(np.ones((R, R), np.float32))
        scores = share * jnp.einsum("btshk,btrhk->bthsr", q, k, preferred_element_type=jnp.float32)
        y = y.astype(jnp.float32) + jnp.einsum("bthsr,btrhv->btshv", scores, v) + self.D[...][:, None] * v

        y = rearrange(self._gated(y, z), "B T H V -> B T (H V)").astype(x.dtype)
        last = edge(k, cache.k, segment_ids), edge(x, cache.x, segment_ids)
        return self.out(y), Mamba3Cache(state, jnp.mod(angle, 2 * jnp.pi), *last, tail)

    def _values(self, x: Float[Array, "B T H V"]) -> Float[Array, "B T R H V"]:
        v = x[:, :, None].astype(jnp.float32)
        return v if self.mimo_x is None else v * self.mimo_x

    def _gated(self, y: Float[Array, "B T R H V"], z: Float[Array, "B T H V"]) -> Float[Array, "B T H V"]:
        z = z[:, :, None].astype(jnp.float32)
        if self.mimo_z is None or self.mimo_o is None:
            return (y * jax.nn.silu(z))[:, :, 0]
        return (y * jax.nn.silu(z * self.mimo_z) * self.mimo_o).sum(2)

    def _recur(self, q, k, v, g, state, segment_ids):
        """The R writes of a token as R tokens, of which only the first decays; output r reads after r of them."""
        R = self.config.rank
        g = jnp.pad(g[:, :, None], ((0, 0), (0, 0), (0, R - 1), (0, 0)))
        ids = None if segment_ids is None else jnp.repeat(segment_ids, R, axis=1)
        q, k, v, g = (rearrange(a, "B T R ... -> B (T R) ...") for a in (q, k, v, g))
        y, state = gla(q, k, v, g, scale=1.0, initial_state=state, segment_ids=ids)
        return rearrange(y, "B (T R) H V -> B T R H V", R=R), state


def turned(x: Float[Array, "*axes K"], angle: Float[Array, "*axis A"]) -> Float[Array, "*axes K"]:
    """Turns channels i and i + A by ``angle[i]``, for i < A; the others stay."""
    A = angle.shape[-1]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    left, right, rest = jnp.split(x, [A, 2 * A], axis=-1)
    return jnp.concatenate([left * cos - right * sin, left * sin + right * cos, rest], axis=-1)


def following(x: Float[Array, "B T D"], segment_ids: Int[Array, "B T"] | None) -> Float[Array, "B T D"]:
    """x of the next token of the same segment; 0 where there is none."""
    flip = lambda a: None if a is None else jnp.flip(a, axis=1)  # noqa: E731
    previous = jnp.zeros((2, x.shape[2]), x.dtype).at[0].set(1)
    return jnp.flip(short_conv(jnp.flip(x, axis=1), previous, segment_ids=flip(segment_ids))[0], axis=1)


def edge(
    x: Float[Array, "B T ..."], none: Float[Array, "B ..."], segment_ids: Int[Array, "B T"] | None, *, last: bool = True
) -> Float[Array, "B ..."]:
    """x of the last (or first) token that is not padding, in the dtype of ``none``; ``none`` where all are padding."""
    if segment_ids is None:
        return x[:, -1 if last else 0].astype(none.dtype)
    valid = segment_ids >= 0
    place = x.shape[1] - 1 - jnp.argmax(jnp.flip(valid, 1), 1) if last else jnp.argmax(valid, 1)
    column = lambda a: a.reshape(a.shape + (1,) * (none.ndim - 1))  # noqa: E731
    found = jnp.take_along_axis(x, column(place)[:, None], axis=1)[:, 0]
    return jnp.where(column(valid.any(1)), found.astype(none.dtype), none)
