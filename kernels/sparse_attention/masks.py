"""What a token may see: frozen descriptions, and the rule that each of them states.

Position ``p`` counts the tokens of the document before it, padding apart. Every mask is causal: a key is seen by no
token before it, and by none of another document. What is not causal in its paper is so here.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from ..segments import segments


def positive(mask, least: int = 1, **fields: int) -> None:
    """Refuses fields below ``least``."""
    for name, value in fields.items():
        if value < least:
            raise ValueError(f"{type(mask).__name__}: {name}={value}; expected at least {least}")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Window:
    """Token p sees s where ``p - s < window``, itself included, and where ``s < sinks``.

    Args:
      window: how many tokens a token sees.
      sinks: how many first tokens of its document every token sees (StreamingLLM, Xiao et al. 2023, arXiv 2309.17453;
        the global tokens of Longformer, Beltagy et al. 2020, 2004.05150: what they see comes before them).
    """

    window: int = jax.tree.static()
    sinks: int = jax.tree.static(default=0)

    def __post_init__(self):
        positive(self, window=self.window)
        positive(self, 0, sinks=self.sinks)

    def rule(self, p: Int[Array, "B T 1"], s: Int[Array, "B 1 S"], heads: int) -> Bool[Array, "B #H T S"]:
        """Which keys of its own document, not later than itself, a query sees."""
        return ((p - s < self.window) | (s < self.sinks))[:, None]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dilated:
    """Token p sees itself and ``window - 1`` more at distances of 1, 2, 3 .. times ``dilation``, and the ``sinks``.

    Args:
      window: how many tokens a token sees.
      dilation: their distance, one for all heads or a tuple of one a head (Longformer, arXiv 2004.05150).
      sinks: as in ``Window``.
    """

    window: int = jax.tree.static()
    dilation: int | tuple[int, ...] = jax.tree.static()
    sinks: int = jax.tree.static(default=0)

    def __post_init__(self):
        positive(self, window=self.window, dilation=int(np.min(self.dilation)))
        positive(self, 0, sinks=self.sinks)

    def rule(self, p: Int[Array, "B T 1"], s: Int[Array, "B 1 S"], heads: int) -> Bool[Array, "B #H T S"]:
        """See ``Window.rule``."""
        d, away = np.reshape(self.dilation, (-1, 1, 1)), (p - s)[:, None]
        return (away % d == 0) & (away < self.window * d) | (s < self.sinks)[:, None]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Strided:
    """Token p sees the last ``stride`` tokens, and every one that is a multiple of ``stride`` away, and the ``sinks``.

    The two heads of the Sparse Transformer (Child et al. 2019, arXiv 1904.10509, section 4.2) in one.

    Args:
      stride: the stride, about the root of T.
      sinks: as in ``Window``.
    """

    stride: int = jax.tree.static()
    sinks: int = jax.tree.static(default=0)

    def __post_init__(self):
        positive(self, stride=self.stride)
        positive(self, 0, sinks=self.sinks)

    def rule(self, p: Int[Array, "B T 1"], s: Int[Array, "B 1 S"], heads: int) -> Bool[Array, "B #H T S"]:
        """See ``Window.rule``."""
        return ((p - s < self.stride) | ((p - s) % self.stride == 0) | (s < self.sinks))[:, None]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BigBird:
    """Documents are cut in blocks: a token sees its own block, those just before it, random ones, and the ``sinks``.

    Args:
      block: tokens of a block.
      window: how many blocks, its own included, a token sees (as far as they are not later than itself).
      random: how many blocks before these it sees besides, drawn without replacement for each block and key head; all
        where there are fewer.
      sinks: as in ``Window``; BigBird's global tokens.
      seed: of the draw. A block's draw does not depend on what follows it.

    Source: Zaheer et al. (2020), arXiv 2007.14062.
    """

    block: int = jax.tree.static()
    window: int = jax.tree.static(default=3)
    random: int = jax.tree.static(default=3)
    sinks: int = jax.tree.static(default=0)
    seed: int = jax.tree.static(default=0)

    def __post_init__(self):
        positive(self, block=self.block, window=self.window)
        positive(self, 0, random=self.random, sinks=self.sinks, seed=self.seed)

    def table(self, heads: int, S: int) -> Int[np.ndarray, "Hk blocks random"]:
        """The random blocks that each block of a document of S tokens sees, by key head; -1: none."""
        blocks = -(-S // self.block)
        table = np.full((heads, blocks, self.random), -1, np.int32)
        first = self.sinks // self.block  # the blocks of sinks are seen anyway
        for head in range(heads):
            for n in range(first + self.window, blocks):
                rng = np.random.default_rng([self.seed, head, n])
                drawn = rng.permutation(np.arange(first, n - self.window + 1))[: self.random]
                table[head, n, : len(drawn)] = drawn
        return table

    def rule(self, p: Int[Array, "B T 1"], s: Int[Array, "B 1 S"], heads: int) -> Bool[Array, "B #H T S"]:
        """See ``Window.rule``."""
        drawn = jnp.asarray(self.table(heads, s.shape[-1]))[:, p[..., 0] // self.block]  # [Hk, B, T, random]
        drawn = jnp.moveaxis(drawn, 0, 1)
        own, other = p // self.block, s // self.block
        near = (own - other < self.window) | (s < self.sinks)
        return near[:, None] | (drawn[..., None, :] == other[:, None, :, :, None]).any(-1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Blocks:
    """Blocks of keys that data chose: a list for every block of queries.

    A list names the first key of each block, so that blocks may start where a document starts; ``Blocks(number * size,
    size)`` if they are numbered. Keys are counted as they lie in ``k``, padding included (``packing`` moves it out of
    the way). A block may reach beyond the query or out of its document: what the query must not see is left out. A key
    that a list names twice counts twice. Blocks of one key are a choice of tokens.

    Args:
      start: the first keys, ``[B, N, G, n]``, -1 for unused entries: for each of the ``N = ceil(T / query_block)``
        blocks of queries; G is 1, the number of key heads (whose query heads share the list), or of query heads.
      size: keys of a block.
      query_block: queries of a block.
    """

    start: Int[Array | np.ndarray, "B N G n"] | Any  # JAX unflattens with other things than arrays
    size: int = jax.tree.static()
    query_block: int = jax.tree.static(default=1)

    def __post_init__(self):
        positive(self, size=self.size, query_block=self.query_block)


Mask = Window | Dilated | Strided | BigBird | Blocks


class Places(NamedTuple):
    """Where the keys stand: two belong to one document iff their numbers agree; padding is not ``valid``."""

    document: Int[Array, "B S"]
    position: Int[Array, "B S"]
    valid: Bool[Array, "B S"]


def places(shape: tuple[int, int], segment_ids: Int[Array, "B S"] | None) -> Places:
    """The places of ``shape`` tokens; padding takes no position."""
    if segment_ids is None:
        position = jnp.broadcast_to(jnp.arange(shape[1], dtype=jnp.int32), shape)
        return Places(jnp.zeros(shape, jnp.int32), position, jnp.ones(shape, bool))
    seg = segments(segment_ids)
    rank = jnp.cumsum(seg.valid, axis=1, dtype=jnp.int32) - 1
    start = jax.lax.cummax(jnp.where(seg.first, rank, 0), axis=1)
    return Places(seg.number, jnp.maximum(rank - start, 0), seg.valid)
