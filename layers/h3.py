"""H3: linear attention whose sums over time are state space models, a shift of the keys and a diagonal one."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Float, Int

from . import flops
from .base import Mixer, MixerConfig
from .parts import Keys, ShortConv, conv_bytes, conv_params, dense, projected
from .s4d import DiagonalSSM, ssm_params


@dataclass(frozen=True)
class H3Config(MixerConfig):
    """Settings of ``H3``; the defaults are the official code's.

    Args:
      head_dim: width of a head: its state holds the products of all pairs of its channels.
      state_dim: states of the diagonal model, an even number; they are conjugate pairs, of which one is kept.
      short_conv: states of the shift model, which is a causal filter of that width on the keys; 0: none.
    """

    head_dim: int = 1
    state_dim: int = 64
    short_conv: int = 64

    def heads(self, dim: int) -> int:
        """The number of heads."""
        if dim % self.head_dim:
            raise ValueError(f"h3: the width {dim} must be a multiple of head_dim={self.head_dim}")
        return dim // self.head_dim

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "H3":
        """Builds the mixer."""
        return H3(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        heads = self.heads(dim)
        return 4 * dim * (dim + 1) + conv_params(self.short_conv, dim) + ssm_params(heads, self.state_dim // 2) + heads

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        products = dim * self.head_dim
        recurrence = flops.diagonal_ssm(products, self.state_dim // 2)
        return 4 * flops.projection(dim, dim) + flops.short_conv(self.short_conv, dim) + recurrence + 2.0 * products

    def state_bytes(self, dim: int, T: int) -> int:
        """The diagonal model's complex state, and the shift's."""
        return 8 * dim * self.head_dim * (self.state_dim // 2) + conv_bytes(self.short_conv, dim)


class H3Cache(NamedTuple):
    """What ``H3`` keeps; ``D`` counts the products of key and value channels."""

    state: Complex[Array, "B D N"]
    tail: Float[Array, "B tail C"]


class H3(Mixer):
    """The H3 mixer.

    ``q, k, v = W u + b``; per head, with ``p_t = shift(k)_t v_t^T``: ``S_t = SSM(p)_t + D p_t``, a ``DiagonalSSM`` to
    each head, run on every entry of p; ``o_t = S_t^T q_t``; ``y = W_o o + b_o``. The shift model is a filter over the
    last ``short_conv`` keys; its skip is a part of the filter's last tap.

    Only the mixer: no norm before it, no residual. As in the official code, the filter starts uniform in
    +-``short_conv ** -0.5``, D standard normal, and the diagonal model as ``DiagonalSSM`` says.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; the recurrence is complex64.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Fu, Dao, Saab, Thomas, Rudra & Re (2022), Hungry Hungry Hippos, arXiv 2212.14052;
    github.com/HazyResearch/H3.
    """

    def __init__(
        self,
        dim: int,
        config: H3Config = H3Config(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys = Keys(rngs)
        self.heads, self.N = config.heads(dim), config.state_dim // 2
        self.products = dim * config.head_dim
        self.qkv = dense(keys, "qkv", dim, 3 * dim, dtype=dtype, bias=True)
        self.conv = ShortConv(keys, "conv", config.short_conv, dim)
        self.ssm = DiagonalSSM(keys, "ssm", self.heads, self.N)
        self.D = nnx.Param(jax.random.normal(keys("D"), (self.heads,), jnp.float32))
        self.out = dense(keys, "out", dim, dim, dtype=dtype, bias=True)

    def init_cache(self, batch: int, max_len: int) -> H3Cache:
        """The zero state."""
        return H3Cache(jnp.zeros((batch, self.products, self.N), jnp.complex64), self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: H3Cache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], H3Cache]:
        """Runs the T next tokens from the cached state."""
        q, k, v = projected(self.qkv, x, 3)
        k, tail = self.conv(k, cache.tail, segment_ids)
        q, k, v = (rearrange(z.astype(jnp.float32), "B T (H K) -> B T H K", H=self.heads) for z in (q, k, v))
        kv = k[..., :, None] * v[..., None, :]
        S, state = self.ssm(rearrange(kv, "B T H K V -> B T (H K V)"), cache.state, segment_ids)
        S = S.reshape(kv.shape) + self.D[...][:, None, None] * kv
        o = jnp.einsum("BTHKV,BTHK->BTHV", S, q)
        return self.out(rearrange(o, "B T H V -> B T (H V)")), H3Cache(state, tail)
