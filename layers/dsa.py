"""Attention to a few tokens that a small indexer chooses, in the manner of DeepSeek Sparse Attention."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from . import flops
from .attention import Attention, AttentionConfig
from .blocks import choose
from .kv_cache import Place, advance, gathered, held, line, store, tiled, visible
from .parts import GroupNorm, Keys, dense, rope

PAIRS = 1 << 16
"""How many chosen keys are in memory at once, for a head."""


@dataclass(frozen=True)
class DSAConfig(AttentionConfig):
    """Settings of ``DSA``: those of ``AttentionConfig``, of which ``window`` has no meaning here, and

    Args:
      chosen: how many tokens a query attends to; where there are fewer, to all.
      index_heads: heads of the indexer, which share one key.
      index_dim: their width, even.
    """

    chosen: int = 2048
    index_heads: int = 4
    index_dim: int = 32

    def sizes(self, dim: int) -> tuple[int, int, int]:
        """See ``AttentionConfig``; checks the settings."""
        for name in ("chosen", "index_heads", "index_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"dsa: {name}={getattr(self, name)}; expected at least 1")
        if self.index_dim % 2:
            raise ValueError(f"dsa: index_dim={self.index_dim} must be even")
        if self.window is not None:
            raise ValueError(f"dsa: window={self.window}; expected None, since the indexer says what a token sees")
        return super().sizes(dim)

    @property
    def most(self) -> int:
        """See ``AttentionConfig``."""
        return self.chosen

    @property
    def indexer(self) -> int:
        """Outputs of the indexer's projection: its queries, its key and its heads' weights."""
        return (self.index_heads + 1) * self.index_dim + self.index_heads

    def param_count(self, dim: int) -> int:
        """The number of parameters: those of ``Attention``, the indexer's projection and its key's norm."""
        return super().param_count(dim) + dim * self.indexer + 2 * self.index_dim

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token, averaged over a sequence of T: the indexer scores every token before it."""
        scores = 2.0 * self.index_heads * (self.index_dim + 1) * (T + 1) / 2
        return super().flops_per_token(dim, T) + flops.projection(dim, self.indexer) + scores

    def state_bytes(self, dim: int, T: int) -> int:
        """As ``Attention``, and the indexer's keys."""
        return super().state_bytes(dim, T) + 4 * T * self.index_dim

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "DSA":
        """Builds the mixer."""
        return DSA(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)


class DSACache(NamedTuple):
    """The token at position p of its document lies in slot p."""

    k: Float[Array, "B M Hk K"]
    v: Float[Array, "B M Hk K"]
    length: Int[Array, " B"]
    tail: Float[Array, "B tail D"]
    index: Float[Array, "B M N"]
    """The indexer's keys."""


class DSA(Attention):
    """Attention to the ``chosen`` tokens s, not later than t, with the largest index score

    ``I_ts = sum_j w_tj relu(q'_tj . k'_s)``,

    where the indexer's queries q', its one key k' (under a layer norm; both rotated) and its weights w are projections
    of the input. In the paper the indexer learns from a loss of its own, towards the attention's distribution. A mixer
    has no loss, so the indexer here learns from the model's: chosen scores are added to the attention's logits as
    ``I - stop_gradient(I)``, which is 0, and so get the gradient that the logits of their tokens get. As in the
    paper, none of it passes into the indexer's input. The paper's attention has compressed keys (MLA); here they are
    those of ``Attention``, and every head reads the same tokens.

    Only the mixer: no norm before it, no residual. Each document counts its positions from 0. Projections, norms,
    positions and the arguments are those of ``Attention``; w is scaled by (heads * width) ** -1/2 as in the official
    code. A step scores every token that the cache keeps, and reads the keys and values of those chosen.

    Source: DeepSeek-AI (2025), DeepSeek-V3.2, arXiv 2512.02556; github.com/deepseek-ai/DeepSeek-V3.2-Exp.
    """

    config: DSAConfig

    def __init__(
        self,
        dim: int,
        config: DSAConfig = DSAConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(dim, config, layer=layer, depth=depth, dtype=dtype, rngs=rngs)
        self.indexer = dense(Keys(rngs), "indexer", dim, config.indexer, dtype=dtype)
        self.index_norm = GroupNorm(config.index_dim)

    def init_cache(self, batch: int, max_len: int) -> DSACache:
        """An empty cache for ``max_len`` tokens, which no document may exceed."""
        index = jnp.zeros((batch, max_len, self.config.index_dim), self.dtype)
        return DSACache(*super().init_cache(batch, max_len), index)

    def attend(self, x, q, k, v, new, cache, segment_ids):
        """See ``Attention``."""
        config, slots = self.config, cache.k.shape[1]
        N, heads = config.index_dim, config.index_heads
        projected = self.indexer(jax.lax.stop_gradient(x))
        asks, key, weight = jnp.split(projected, [heads * N, (heads + 1) * N], axis=-1)
        key = rope(self.index_norm(key)[:, :, None], new.position, config.rope_base)[:, :, 0]
        asks = rope(rearrange(asks, "B T (H N) -> B T H N", N=N), new.position, config.rope_base)
        weight = weight.astype(jnp.float32) * (heads * N) ** -0.5
        written = cache
        if slots:
            length = advance(cache.length, new)
            buffers = ((cache.k, k), (cache.v, v), (cache.index, key))
            k_slots, v_slots, index = (store(c, z, new, length) for c, z in buffers)
            written = DSACache(k_slots, v_slots, length, cache.tail, index)
        if q.shape[1] == 1 and slots > 0:
            valid = held(written.length, slots).valid[:, None]
            index, bias = self.choose(asks, weight, written.index, valid)
            return gathered(q, written.k, written.v, index, bias), written

        row = line(held(cache.length, slots), new, plain=slots == 0 and segment_ids is None)
        keys, values, indexed = row.keys(cache.k, k), row.keys(cache.v, v), row.keys(cache.index, key)

        def attend(tile: tuple[Array, Array, Array, Place]) -> Float[Array, "B t H K"]:
            q, asks, weight, query = tile
            index, bias = self.choose(asks, weight, indexed, visible(query, row.place))
            return gathered(q, keys, values, index, bias)

        tile = max(1, PAIRS // min(config.chosen, keys.shape[1]))
        return row.outputs(tiled(attend, (*map(row.queries, (q, asks, weight)), row.query), tile)), written

    def choose(
        self,
        asks: Float[Array, "B T Hi N"],
        weight: Float[Array, "B T Hi"],
        keys: Float[Array, "B S N"],
        allowed: Bool[Array, "B T S"],
    ) -> tuple[Int[Array, "B T 1 n"], Float[Array, "B T 1 n"]]:
        """The tokens with the largest scores, and zeros that carry these scores' gradients."""
        scores = self.scores(asks, weight, keys)
        index = choose(jax.lax.stop_gradient(scores), allowed, self.config.chosen)
        chosen = jnp.take_along_axis(scores, jnp.maximum(index, 0), axis=-1)
        return index[:, :, None], (chosen - jax.lax.stop_gradient(chosen))[:, :, None]

    def scores(
        self, asks: Float[Array, "B T Hi N"], weight: Float[Array, "B T Hi"], keys: Float[Array, "B S N"]
    ) -> Float[Array, "B T S"]:
        """The index scores I, in float32."""
        products = jax.nn.relu(jnp.einsum("bthn,bsn->bths", asks, keys, preferred_element_type=jnp.float32))
        return jnp.einsum("bth,bths->bts", weight, products)
