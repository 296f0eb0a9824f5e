"""Blocks of a document's tokens, and the choice among them: what MoBA and NSA share."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from .kv_cache import Line, Place


class LineBlocks(NamedTuple):
    """The whole blocks of the documents of a ``Line``; unused entries have ``first`` -1."""

    first: Int[Array, "B N"]
    """Where the block's first token lies."""
    document: Int[Array, "B N"]
    number: Int[Array, "B N"]
    """Which block of its document it is."""
    size: int

    def rows(self, x: Float[Array, "B S *axes"]) -> Float[Array, "B N C *axes"]:
        """The rows of each block."""
        index = jnp.maximum(self.first, 0)[:, :, None] + jnp.arange(self.size)
        return jax.vmap(lambda x, i: x[i])(x, index)

    def below(self, query: Place, bound: Int[Array, "B T"]) -> Bool[Array, "B T N"]:
        """Which blocks are of a query's document, and have a number below ``bound``."""
        same = self.document[:, None] == query.document[..., None]
        return same & (self.first >= 0)[:, None] & (self.number[:, None] < bound[..., None])


def line_blocks(row: Line, size: int, *, continued: bool = True) -> LineBlocks:
    """The blocks of ``size`` tokens of the line's documents, each counted from its document's start.

    Without ``continued``, those of document 0 are left out.
    """
    B, S = row.place.valid.shape
    N = S // size
    if row.packing is None:
        number = jnp.broadcast_to(jnp.arange(N, dtype=jnp.int32), (B, N))
        return LineBlocks(size * number, jnp.zeros((B, N), jnp.int32), number, size)
    first = jnp.arange(S, dtype=jnp.int32) - (size - 1)
    last = row.place.valid & (row.place.position % size == size - 1) & (first >= 0)
    if not continued:
        last = last & (row.place.document > 0)
    rank = jnp.where(last, jnp.cumsum(last, axis=1) - 1, N)
    first = jnp.full((B, N), -1, jnp.int32).at[jnp.arange(B)[:, None], rank].set(first, mode="drop")
    at = jnp.maximum(first, 0)
    document, position = (jnp.take_along_axis(x, at, axis=1) for x in (row.place.document, row.place.position))
    return LineBlocks(first, document, position // size, size)


def origin(row: Line) -> Int[Array, "B T"]:
    """Where the first token of each query's document lies."""
    S = row.place.valid.shape[1]
    return jnp.arange(S - row.new, S, dtype=jnp.int32) - row.query.position


def with_own(number: Int[Array, "B T G n"], position: Int[Array, "B T"], size: int) -> Int[Array, "B T G m"]:
    """The number of a query's own block, and those of the chosen ones."""
    own = jnp.broadcast_to((position // size)[:, :, None, None], (*number.shape[:3], 1))
    return jnp.concatenate([own, number], axis=-1)


def starts(number: Int[Array, "B T G n"], origin: Int[Array, "B T"], size: int) -> Int[Array, "B T G n"]:
    """Where blocks of the queries' documents begin; -1 where the number is."""
    return jnp.where(number < 0, -1, origin[:, :, None, None] + size * number)


def choose(scores: Float[Array, "*axes N"], allowed: Bool[Array, "*#axes N"], count: int) -> Int[Array, "*axes n"]:
    """The ``count`` best that are allowed, or as many as there are; -1 where fewer are allowed."""
    count = min(count, scores.shape[-1])
    if count == 0:
        return jnp.zeros((*scores.shape[:-1], 0), jnp.int32)
    best, index = jax.lax.top_k(jnp.where(allowed, scores, -jnp.inf), count)
    return jnp.where(best > -jnp.inf, index, -1)


def pick(values: Int[Array, "B N"], index: Int[Array, "B *axes"]) -> Int[Array, "B *axes"]:
    """``values[b, index[b, ...]]``, and -1 where the index is."""
    if values.shape[1] == 0:
        return index
    taken = jax.vmap(lambda v, i: v[i])(values, jnp.maximum(index, 0))
    return jnp.where(index < 0, -1, taken)


def block_tokens(number: Int[Array, "B 1 G n"], position: Int[Array, "B 1"], size: int) -> Int[Array, "B 1 G m"]:
    """The tokens of blocks, by position, as far as they are not after ``position``; -1: none."""
    tokens = size * number[..., None] + jnp.arange(size)
    tokens = jnp.where((number[..., None] >= 0) & (tokens <= position[:, :, None, None, None]), tokens, -1)
    return tokens.reshape(*number.shape[:3], -1)


def add_to_block(
    sums: Float[Array, "B N Hk K"], row: Float[Array, "B 1 Hk K"], place: Place, size: int
) -> Float[Array, "B N Hk K"]:
    """Adds one token's row to its block's sum, which its first token begins anew. The last block may have no sum."""
    N = sums.shape[1]
    if N == 0:
        return sums
    position, b = place.position[:, 0], jnp.arange(sums.shape[0])
    number = position // size
    old = jnp.where((position % size == 0)[:, None, None], 0, sums[b, jnp.minimum(number, N - 1)])
    return sums.at[b, jnp.where(place.valid[:, 0], number, N)].set(old + row[:, 0].astype(sums.dtype), mode="drop")


def block_sums(
    rows: Shaped[Array, "B M Hk K"], valid: Bool[Array, "B M"], N: int, size: int
) -> Float[Array, "B N Hk K"]:
    """The sums over the first N blocks of what the slots hold, the token at position p in slot p."""
    rows = jnp.where(valid[..., None, None], rows.astype(jnp.float32), 0)[:, : N * size]
    return jnp.sum(rows.reshape(rows.shape[0], N, size, *rows.shape[2:]), axis=2)
