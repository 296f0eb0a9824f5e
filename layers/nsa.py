"""Native sparse attention: compressed blocks, chosen blocks and a window, each with keys of its own, gated."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from ..kernels.sparse_attention import Blocks, Window, sparse_attention
from . import flops
from .attention import Attention, AttentionConfig
from .blocks import LineBlocks, block_tokens, choose, line_blocks, origin, pick, starts, with_own
from .kv_cache import Place, advance, gathered, held, line, masked_softmax, store, tiled
from .parts import Keys, conv_bytes, dense


@dataclass(frozen=True)
class NSAConfig(AttentionConfig):
    """Settings of ``NSA``: those of ``AttentionConfig``, and

    Args:
      kv_heads: heads of each branch's keys and values; the query heads that share one choose together.
      window: how many tokens the window branch sees, a token's own included.
      block_size: tokens of a block, both of those compressed and of those chosen from.
      chosen: how many blocks the second branch sees: a token's own, the one before, the first, and the best others;
        where there are fewer yet, as in a prompt, all of them.
    """

    window: int = 512  # pyright: ignore[reportIncompatibleVariableOverride]
    block_size: int = 64
    chosen: int = 16

    def sizes(self, dim: int) -> tuple[int, int, int]:
        """Query heads, the key heads of all three branches, and the channels of q, k and v; checks the settings."""
        for name, least in (("block_size", 1), ("chosen", 3)):
            if getattr(self, name) < least:
                raise ValueError(f"nsa: {name}={getattr(self, name)}; expected at least {least}")
        heads, kv_heads, _ = super().sizes(dim)
        return heads, 3 * kv_heads, (heads + 6 * kv_heads) * self.head_dim

    def param_count(self, dim: int) -> int:
        """The number of parameters: those of ``Attention``, the branches' gates and the compression's weights."""
        heads, _, _ = self.sizes(dim)
        return super().param_count(dim) + 3 * heads * dim + 2 * self.block_size * self.head_dim

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token, averaged over a sequence of T; a chosen block counts whole."""
        heads, _, channels = self.sizes(dim)
        K, inner = self.head_dim, heads * self.head_dim
        projections = flops.projection(dim, channels + 3 * heads + inner * (2 if self.gate else 1))
        compressed = 4.0 * heads * K * flops.blocks_seen(T, self.block_size)
        chosen = flops.attention(heads, K, T, self.block_size * self.chosen)
        window = flops.attention(heads, K, T, self.window)
        return projections + flops.short_conv(self.short_conv, channels) + compressed + chosen + window

    def state_bytes(self, dim: int, T: int) -> int:
        """Tokens of the second branch, the last of the third, blocks of the first; their number; the filter's tail."""
        _, kv_heads, channels = self.sizes(dim)
        rows = T + T // self.block_size + min(T, self.window)
        return 4 * (2 * rows * kv_heads // 3 * self.head_dim + 1) + conv_bytes(self.short_conv, channels)

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "NSA":
        """Builds the mixer."""
        return NSA(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)


class NSACache(NamedTuple):
    """What each branch keeps; the token at position p lies in slot p, of the window's in slot ``p % window``."""

    k: Float[Array, "B M Hk K"]
    v: Float[Array, "B M Hk K"]
    k_window: Float[Array, "B W Hk K"]
    v_window: Float[Array, "B W Hk K"]
    k_blocks: Float[Array, "B N Hk K"]
    """The compressed keys of blocks, as far as they go."""
    v_blocks: Float[Array, "B N Hk K"]
    length: Int[Array, " B"]
    tail: Float[Array, "B tail D"]


class Compressed(NamedTuple):
    """Compressed blocks: keys and values, of which document and which of its blocks."""

    k: Float[Array, "B N Hk K"]
    v: Float[Array, "B N Hk K"]
    document: Int[Array, "B N"]
    number: Int[Array, "B N"]

    def seen(self, query: Place, size: int) -> Bool[Array, "B T N"]:
        """The blocks of each query's document that end with it or before."""
        same = self.document[:, None] == query.document[..., None]
        return same & (self.number[:, None] < (query.position // size + (query.position % size == size - 1))[..., None])


class NSA(Attention):
    """Native sparse attention: ``y = W_o [g_c o_c + g_s o_s + g_w o_w]``, the gates ``g = sigmoid(W_g x)`` per head.

    The branches share queries and have keys and values of their own. ``o_c`` attends to whole blocks of ``block_size``
    tokens, each compressed into one key and one value: ``sum_j w_j k_j`` with learned weights per position in the block
    and channel, which start as the mean. ``o_s`` attends to the tokens of ``chosen`` blocks: the query's own, the one
    before, the document's first, and those to which ``o_c`` gives most weight, summed over the query heads that share
    keys. ``o_w`` attends to the last ``window`` tokens. The choice passes no gradient. The paper compresses by a small
    network that it leaves open, from blocks of 32 tokens that overlap by half.

    Only the mixer: no norm before it, no residual. Each document counts its positions from 0. Projections, norms,
    positions and the arguments are those of ``Attention``; with ``gate``, the sum is gated again.

    Source: Yuan et al. (2025), Native Sparse Attention, arXiv 2502.11089.
    """

    config: NSAConfig

    def __init__(
        self,
        dim: int,
        config: NSAConfig = NSAConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(dim, config, layer=layer, depth=depth, dtype=dtype, rngs=rngs)
        self.branches = dense(Keys(rngs), "branches", dim, 3 * self.heads, dtype=dtype)
        mean = jnp.full((config.block_size, config.head_dim), 1 / config.block_size, jnp.float32)
        self.k_pool, self.v_pool = nnx.Param(mean), nnx.Param(mean)

    def init_cache(self, batch: int, max_len: int) -> NSACache:
        """An empty cache for ``max_len`` tokens, which no document may exceed."""
        config = self.config
        empty = lambda rows, dtype: jnp.zeros((batch, rows, self.kv_heads // 3, config.head_dim), dtype)  # noqa: E731
        every, last = empty(max_len, self.dtype), empty(min(max_len, config.window), self.dtype)
        blocks = empty(max_len // config.block_size, jnp.float32)
        length = jnp.zeros(batch, jnp.int32)
        return NSACache(every, every, last, last, blocks, blocks, length, self.conv.init_tail(batch))

    def attend(self, x, q, k, v, new, cache, segment_ids):
        """See ``Attention``."""
        (k_c, k_s, k_w), (v_c, v_s, v_w) = jnp.split(k, 3, axis=2), jnp.split(v, 3, axis=2)
        gates = jax.nn.sigmoid(self.branches(x).astype(jnp.float32)).astype(q.dtype)
        gates = rearrange(gates, "B T (n H) -> n B T H 1", n=3)
        slots, size, window = cache.k.shape[1], self.config.block_size, cache.k_window.shape[1]
        rows = (k_c, k_s, k_w), (v_c, v_s, v_w)
        compressed, written = self.compress(k_c, v_c, new, cache, segment_ids), self.write(*rows, new, cache)
        if q.shape[1] == 1 and slots > 0:
            o_c, number = self.coarse(q, new, compressed)
            o_s, o_w = self.decode(q, new, number, written)
            return gates[0] * o_c + gates[1] * o_s + gates[2] * o_w, written

        plain = slots == 0 and segment_ids is None
        row = line(held(cache.length, slots), new, plain=plain)
        queries = row.queries(q)

        def coarse(tile: tuple[Array, Place, Array]) -> tuple[Array, Array]:
            q, query, origin = tile
            o_c, number = self.coarse(q, query, compressed)
            return o_c, starts(number, origin, size)

        o_c, lists = tiled(coarse, (queries, row.query, origin(row)))
        lists = lists[..., : -(-row.place.valid.shape[1] // size)]
        keys, values = row.keys(cache.k, k_s), row.keys(cache.v, v_s)
        o_s = sparse_attention(queries, keys, values, mask=Blocks(lists, size), segment_ids=row.ids)
        o_c, o_s = row.outputs(o_c), row.outputs(o_s)

        row = line(held(cache.length, window), new, plain=plain)
        keys, values = row.keys(cache.k_window, k_w), row.keys(cache.v_window, v_w)
        mask = Window(self.config.window)
        o_w = row.outputs(sparse_attention(row.queries(q), keys, values, mask=mask, segment_ids=row.ids))
        return gates[0] * o_c + gates[1] * o_s + gates[2] * o_w, written

    def coarse(
        self, q: Float[Array, "B T H K"], query: Place, blocks: Compressed
    ) -> tuple[Float[Array, "B T H K"], Int[Array, "B T Hk n"]]:
        """Attends to compressed blocks, and chooses blocks by that."""
        size, position = self.config.block_size, query.position
        q = rearrange(q, "B T (G R) K -> B T G R K", G=self.kv_heads // 3)
        k, v = (z.astype(q.dtype) for z in (blocks.k, blocks.v))
        scores = q.shape[-1] ** -0.5 * jnp.einsum("btgrk,bngk->btgrn", q, k, preferred_element_type=jnp.float32)
        p = masked_softmax(scores, blocks.seen(query, size)[:, :, None, None])
        y = rearrange(jnp.einsum("btgrn,bngk->btgrk", p.astype(v.dtype), v), "B T G R K -> B T (G R) K")

        number, own = blocks.number[:, None], (position // size)[..., None]
        before = (blocks.document[:, None] == query.document[..., None]) & (number < own)
        always = (number == 0) | (number == own - 1)
        weight = jnp.where(always[:, :, None], jnp.inf, jax.lax.stop_gradient(p.sum(axis=3)))
        best = pick(blocks.number, choose(weight, before[:, :, None], self.config.chosen - 1))
        return y, with_own(best, position, size)

    def compress(
        self, k: Float[Array, "B T Hk K"], v: Float[Array, "B T Hk K"], new: Place, cache: NSACache, segment_ids
    ) -> Compressed:
        """The compressed blocks that new tokens may see."""
        size, N = self.config.block_size, cache.k_blocks.shape[1]
        parts = []
        if cache.k.shape[1] > 0:
            first = new._replace(valid=new.valid & (new.document == 0))
            k_blocks, v_blocks = self.add(k, v, first, cache)
            number = jnp.broadcast_to(jnp.arange(N, dtype=jnp.int32), (k.shape[0], N))
            parts.append(Compressed(k_blocks, v_blocks, jnp.zeros_like(number), number))
        if cache.k.shape[1] == 0 or (segment_ids is not None and k.shape[1] > 1):
            row = line(held(cache.length, 0), new, plain=segment_ids is None)
            blocks = line_blocks(row, size, continued=cache.k.shape[1] == 0)
            none = jnp.zeros((k.shape[0], 0, *k.shape[2:]), k.dtype)
            k_blocks = self.pooled(blocks, row.keys(none, k), self.k_pool)
            v_blocks = self.pooled(blocks, row.keys(none, v), self.v_pool)
            parts.append(
                Compressed(k_blocks, v_blocks, jnp.where(blocks.first < 0, -1, blocks.document), blocks.number)
            )
        return Compressed(*(jnp.concatenate(each, axis=1) for each in zip(*parts, strict=True)))

    def pooled(self, blocks: LineBlocks, rows: Float[Array, "B S Hk K"], weight) -> Float[Array, "B N Hk K"]:
        """The blocks of a line, compressed."""
        return jnp.einsum("bnchk,ck->bnhk", blocks.rows(rows.astype(jnp.float32)), weight[...])

    def add(
        self, k: Float[Array, "B T Hk K"], v: Float[Array, "B T Hk K"], new: Place, cache: NSACache
    ) -> list[Float[Array, "B N Hk K"]]:
        """The cache's compressed blocks, and what the ``valid`` tokens of one document add to them."""
        size, N = self.config.block_size, cache.k_blocks.shape[1]
        number = jnp.where(new.valid, new.position // size, N)
        b, within, sums = jnp.arange(k.shape[0])[:, None], new.position % size, []
        for old, z, weight in ((cache.k_blocks, k, self.k_pool), (cache.v_blocks, v, self.v_pool)):
            rows = z.astype(jnp.float32) * weight[within][:, :, None]
            sums.append(old.at[b, number].add(rows, mode="drop"))
        return sums

    def write(self, keys: tuple, values: tuple, new: Place, cache: NSACache) -> NSACache:
        """The cache with the new tokens."""
        if cache.k.shape[1] == 0:
            return cache
        length, (k_c, k_s, k_w), (v_c, v_s, v_w) = advance(cache.length, new), keys, values
        last = new.document[:, -1:]
        goes_on = (last == 0)[..., None, None]
        old = cache._replace(
            k_blocks=jnp.where(goes_on, cache.k_blocks, 0), v_blocks=jnp.where(goes_on, cache.v_blocks, 0)
        )
        k_blocks, v_blocks = self.add(k_c, v_c, new._replace(valid=new.valid & (new.document == last)), old)
        return NSACache(
            store(cache.k, k_s, new, length),
            store(cache.v, v_s, new, length),
            store(cache.k_window, k_w, new, length),
            store(cache.v_window, v_w, new, length),
            k_blocks,
            v_blocks,
            length,
            cache.tail,
        )

    def decode(self, q, new, number, cache):  # pyright: ignore[reportIncompatibleMethodOverride]
        """The second and third branch of one token, which the cache holds already."""
        slots, size, position = cache.k.shape[1], self.config.block_size, new.position
        attention = jax.nn.dot_product_attention
        if slots <= size * self.config.chosen:
            o_s = attention(q, cache.k, cache.v, mask=held(cache.length, slots).valid[:, None, None])
        else:
            o_s = gathered(q, cache.k, cache.v, block_tokens(number, position, size))
        mask = held(cache.length, cache.k_window.shape[1]).valid[:, None, None]
        return o_s, attention(q, cache.k_window, cache.v_window, mask=mask)
