"""Mixture of block attention: each query attends to its own block and to the few whose mean key suits it best."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels.sparse_attention import Blocks, sparse_attention
from . import flops
from .attention import Attention, AttentionConfig
from .blocks import add_to_block, block_sums, block_tokens, choose, line_blocks, origin, pick, starts, with_own
from .kv_cache import Place, advance, gathered, held, line, store, tiled


@dataclass(frozen=True)
class MoBAConfig(AttentionConfig):
    """Settings of ``MoBA``: those of ``AttentionConfig``, of which ``window`` has no meaning here, and

    Args:
      block_size: tokens of a block.
      chosen: how many blocks a query attends to, its own included; where there are fewer, to all.
    """

    block_size: int = 512
    chosen: int = 3

    def sizes(self, dim: int) -> tuple[int, int, int]:
        """See ``AttentionConfig``; checks the settings."""
        for name in ("block_size", "chosen"):
            if getattr(self, name) < 1:
                raise ValueError(f"moba: {name}={getattr(self, name)}; expected at least 1")
        if self.window is not None:
            raise ValueError(f"moba: window={self.window}; expected None, since blocks are what a token sees")
        return super().sizes(dim)

    @property
    def most(self) -> int:
        """See ``AttentionConfig``; a block counts whole."""
        return self.block_size * self.chosen

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token, averaged over a sequence of T, with the products that choose blocks."""
        heads, _, _ = self.sizes(dim)
        return super().flops_per_token(dim, T) + 2.0 * heads * self.head_dim * flops.blocks_before(T, self.block_size)

    def state_bytes(self, dim: int, T: int) -> int:
        """As ``Attention``, and the sum of the keys of each whole block."""
        _, kv_heads, _ = self.sizes(dim)
        return super().state_bytes(dim, T) + 4 * (T // self.block_size) * kv_heads * self.head_dim

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "MoBA":
        """Builds the mixer."""
        return MoBA(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)


class MoBACache(NamedTuple):
    """The token at position p of its document lies in slot p."""

    k: Float[Array, "B M Hk K"]
    v: Float[Array, "B M Hk K"]
    length: Int[Array, " B"]
    tail: Float[Array, "B tail D"]
    sums: Float[Array, "B N Hk K"]
    """The sums of the keys of blocks, as far as they go."""


class MoBA(Attention):
    """Mixture of block attention: softmax attention to a query's own block and to the ``chosen - 1`` best before it.

    Documents are cut in blocks of ``block_size`` tokens. Of the blocks before its own, a query q of a head takes those
    with the largest ``q . mean(k)``; within all of them attention is causal. The choice has no parameters, and no
    gradient passes through it.

    Only the mixer: no norm before it, no residual. Each document counts its positions from 0. Projections, norms,
    positions and the arguments are those of ``Attention``. The cache keeps every token and the sum of each block's
    keys: a step reads these sums and the tokens that it chooses.

    Source: Lu et al. (2025), MoBA, arXiv 2502.13189; github.com/MoonshotAI/MoBA.
    """

    config: MoBAConfig

    def init_cache(self, batch: int, max_len: int) -> MoBACache:
        """An empty cache for ``max_len`` tokens, which no document may exceed."""
        blocks = (batch, max_len // self.config.block_size, self.kv_heads, self.config.head_dim)
        return MoBACache(*super().init_cache(batch, max_len), jnp.zeros(blocks, jnp.float32))

    def attend(self, x, q, k, v, new, cache, segment_ids):
        """See ``Attention``."""
        slots, size, count = cache.k.shape[1], self.config.block_size, self.config.chosen
        written = self.write(k, v, new, cache)
        if q.shape[1] == 1 and slots > 0:
            return self.decode(q, new.position, written), written
        row = line(held(cache.length, slots), new, plain=slots == 0 and segment_ids is None)
        keys, values, queries = row.keys(cache.k, k), row.keys(cache.v, v), row.queries(q)
        blocks = line_blocks(row, size)
        means = jnp.mean(blocks.rows(keys.astype(jnp.float32)), axis=2)

        def start(tile: tuple[Array, Place, Array]) -> Int[Array, "B t H n"]:
            q, query, origin = tile
            allowed = blocks.below(query, query.position // size)[:, :, None]
            number = pick(blocks.number, choose(self.scores(q, means), allowed, count - 1))
            return starts(with_own(number, query.position, size), origin, size)

        lists = tiled(start, (queries, row.query, origin(row)))[..., : -(-keys.shape[1] // size)]
        y = sparse_attention(queries, keys, values, mask=Blocks(lists, size), segment_ids=row.ids)
        return row.outputs(y), written

    def scores(self, q: Float[Array, "B T H K"], means: Float[Array, "B N Hk K"]) -> Float[Array, "B T H N"]:
        """How well blocks suit queries, by the mean of their keys."""
        grouped = rearrange(q.astype(jnp.float32), "B T (G R) K -> B T G R K", G=self.kv_heads)
        scores = jnp.einsum("btgrk,bngk->btgrn", *jax.lax.stop_gradient((grouped, means)), precision="highest")
        return rearrange(scores, "B T G R N -> B T (G R) N")

    def write(
        self, k: Float[Array, "B T Hk K"], v: Float[Array, "B T Hk K"], new: Place, cache: MoBACache
    ) -> MoBACache:
        """The cache with the new tokens; their blocks' sums change by one token, or are taken anew."""
        if cache.k.shape[1] == 0:
            return cache
        length = advance(cache.length, new)
        k_slots, v_slots = (store(c, z, new, length) for c, z in ((cache.k, k), (cache.v, v)))
        size, N = self.config.block_size, cache.sums.shape[1]
        if k.shape[1] == 1:
            sums = add_to_block(cache.sums, k, new, size)
        else:
            sums = block_sums(k_slots, held(length, k_slots.shape[1]).valid, N, size)
        return MoBACache(k_slots, v_slots, length, cache.tail, sums)

    def decode(self, q, position, cache):
        """See ``Attention``."""
        size, slots, count = self.config.block_size, cache.k.shape[1], self.config.chosen
        if slots <= size * count:
            return jax.nn.dot_product_attention(
                q, cache.k, cache.v, mask=held(cache.length, slots).valid[:, None, None]
            )
        N = (slots - 1) // size  # the blocks that may lie before a query's own
        before = jnp.arange(N) < (position // size)[:, :, None, None]
        number = choose(self.scores(q, cache.sums[:, :N] / size), before, count - 1)
        index = block_tokens(with_own(number, position, size), position, size)
        return gathered(q, cache.k, cache.v, index)
