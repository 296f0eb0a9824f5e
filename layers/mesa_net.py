"""MesaNet: each token reads the values that fit all keys so far best, in the least-squares sense."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PyTree

from ..kernels import gla
from . import flops
from .base import Mixer, MixerConfig
from .parts import Keys, RMSNorm, ShortConv, conv_bytes, conv_params, dense, head_count, l2_norm

LEAST_LAMBDA = 0.25
"""The smallest regularisation, as in the paper."""


@dataclass(frozen=True)
class MesaNetConfig(MixerConfig):
    """Settings of ``MesaNet``.

    Args:
      heads: heads; None: as many as fill the model width.
      head_dim: width of a head's keys and values (K).
      steps: of conjugate gradient, for each token.
      output_gate: whether the normed output is gated by SiLU of a projection.
      short_conv: width of the causal filter on q and k, before their SiLU; 0: SiLU alone.
    """

    heads: int | None = None
    head_dim: int = 128
    steps: int = 30
    output_gate: bool = False
    short_conv: int = 4

    def sizes(self, dim: int) -> tuple[int, int]:
        """The number of heads and the width of all heads."""
        heads = head_count(self.heads, dim, self.head_dim)
        return heads, heads * self.head_dim

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "MesaNet":
        """Builds the mixer."""
        return MesaNet(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        heads, inner = self.sizes(dim)
        projections = dim * ((4 + self.output_gate) * inner + 2 * heads) + 2 * heads
        return projections + conv_params(self.short_conv, 2 * inner) + inner + self.head_dim

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token, the solver on its own matrix as decoding has it."""
        heads, inner = self.sizes(dim)
        K = self.head_dim
        outputs = (3 + self.output_gate) * inner + 2 * heads
        projections = flops.projection(dim, outputs) + flops.projection(inner, dim)
        recurrence = 2 * flops.gla(heads, K, K) + flops.conjugate_gradient(heads, K, self.steps)
        return projections + flops.short_conv(self.short_conv, 2 * inner) + recurrence

    def state_bytes(self, dim: int, T: int) -> int:
        """Both states and the filter's tail."""
        _, inner = self.sizes(dim)
        return 2 * 4 * inner * self.head_dim + conv_bytes(self.short_conv, 2 * inner)


class MesaNetCache(NamedTuple):
    """What ``MesaNet`` keeps."""

    keys: Float[Array, "B H K K"]
    values: Float[Array, "B H K V"]
    tail: Float[Array, "B tail D"]


class MesaNet(Mixer):
    """The MesaNet mixer.

    q, k pass the short filter and SiLU and are scaled to length 1; ``beta = sigmoid(W_b x + b_b)``,
    ``g = log sigmoid(W_a x + b_a)``; per head
    ``G_t = exp(g_t) G_{t-1} + beta_t k_t k_t^T``, ``S_t = exp(g_t) S_{t-1} + beta_t k_t v_t^T``,
    ``o_t = S_t^T (G_t + diag(lambda))^{-1} q_t``, where ``lambda = softplus(.) + 0.25`` is learned per channel;
    ``y = W_o norm(o)``, the norm per head, with ``output_gate`` times ``silu(W_g x)``.

    The inverse is taken by ``steps`` steps of conjugate gradient for each token; for whole sequences each of these is
    one pass of gated linear attention. The gradient solves the same system once more instead of unrolling the steps.

    Only the mixer: no norm before it, no residual. As in github.com/fla-org/flash-linear-attention, lambda starts at 1
    and the biases at 0.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what projections compute in; gates, states, solver and norms are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: von Oswald et al. (2025), MesaNet, arXiv 2506.05233.
    """

    def __init__(
        self,
        dim: int,
        config: MesaNetConfig = MesaNetConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys = Keys(rngs)
        self.config = config
        self.heads, self.inner = config.sizes(dim)
        self.qk = dense(keys, "qk", dim, 2 * self.inner, dtype=dtype)
        self.conv = ShortConv(keys, "conv", config.short_conv, 2 * self.inner, activation="silu")
        self.value = dense(keys, "value", dim, self.inner, dtype=dtype)
        self.gates = dense(keys, "gates", dim, 2 * self.heads, dtype=dtype, bias=True)
        start = jnp.log(jnp.expm1(1 - LEAST_LAMBDA))
        self.regulariser = nnx.Param(jnp.full((self.heads, config.head_dim), start, jnp.float32))
        self.gate = dense(keys, "gate", dim, self.inner, dtype=dtype) if config.output_gate else None
        self.norm = RMSNorm(config.head_dim)
        self.out = dense(keys, "out", self.inner, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> MesaNetCache:
        """The zero states."""
        state = jnp.zeros((batch, self.heads, self.config.head_dim, self.config.head_dim), jnp.float32)
        return MesaNetCache(state, state, self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: MesaNetCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], MesaNetCache]:
        """Runs the T next tokens from the cached states."""
        qk, tail = self.conv(self.qk(x), cache.tail, segment_ids)
        parts = (*jnp.split(qk, 2, axis=-1), self.value(x))
        q, k, v = (rearrange(z, "B T (H K) -> B T H K", H=self.heads).astype(jnp.float32) for z in parts)
        q, k = l2_norm(q), l2_norm(k)
        g, beta = jnp.split(self.gates(x).astype(jnp.float32), 2, axis=-1)
        g, beta = jax.nn.log_sigmoid(g), jax.nn.sigmoid(beta)[..., None]
        regulariser = jax.nn.softplus(self.regulariser[...]) + LEAST_LAMBDA
        written = k, beta * k, g, cache.keys, segment_ids
        _, keys = product(written, q)
        if x.shape[1] == 1:  # the token's own matrix is at hand
            u = solve(one_matrix, self.config.steps, (keys, regulariser), q)
        else:
            u = solve(every_matrix, self.config.steps, (written, regulariser), q)
        y, values = product((k, beta * v, g, cache.values, segment_ids), u)
        y = self.norm(y)
        if self.gate is not None:
            gate = rearrange(self.gate(x), "B T (H K) -> B T H K", H=self.heads)
            y = y * jax.nn.silu(gate.astype(jnp.float32))
        y = rearrange(y, "B T H V -> B T (H V)").astype(x.dtype)
        return self.out(y), MesaNetCache(keys, values, tail)


def product(written: PyTree, q: Float[Array, "B T H K"]) -> tuple[Float[Array, "B T H V"], Float[Array, "B H K V"]]:
    """``S_t^T q_t`` for every token, and the last S, of what is written into S: keys, values, gates, S_0, segments."""
    k, v, g, state, ids = written
    return gla(q, k, v, g, scale=1.0, initial_state=state, segment_ids=ids)


def every_matrix(params: PyTree, p: Float[Array, "B T H K"]) -> Float[Array, "B T H K"]:
    """``(G_t + diag(lambda)) p_t`` for every token, G never being formed."""
    written, regulariser = params
    return product(written, p)[0] + regulariser * p


def one_matrix(params: PyTree, p: Float[Array, "B T H K"]) -> Float[Array, "B T H K"]:
    """The same for one token, whose G is given."""
    G, regulariser = params
    return jnp.einsum("bhkl,bthl->bthk", G, p) + regulariser * p


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def solve(matrix: Callable, steps: int, params: PyTree, q: Float[Array, "... K"]) -> Float[Array, "... K"]:
    """x of ``matrix(params, x) = q`` by conjugate gradient over the last axis, the matrix being symmetric and positive.

    Source: Hestenes & Stiefel (1952), Methods of Conjugate Gradients for Solving Linear Systems.
    """
    dot = lambda a, b: jnp.sum(a * b, axis=-1, keepdims=True)  # noqa: E731
    ratio = lambda a, b: jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)  # noqa: E731  (0 once all is solved)

    def step(carry, _):
        x, r, p, old = carry
        image = matrix(params, p)
        length = ratio(old, dot(p, image))
        x, r = x + length * p, r - length * image
        new = dot(r, r)
        return (x, r, r + ratio(new, old) * p, new), None

    return jax.lax.scan(step, (jnp.zeros_like(q), q, q, dot(q, q)), length=steps)[0][0]


def _forward(matrix, steps, params, q):
    x = solve(matrix, steps, params, q)
    return x, (params, x)


def _backward(matrix, steps, residuals, dx):
    params, x = residuals
    dq = solve(matrix, steps, params, dx)
    return *jax.vjp(lambda params: matrix(params, x), params)[1](-dq), dq


solve.defvjp(_forward, _backward)
