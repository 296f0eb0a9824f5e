"""Keys and values of past tokens: where tokens stand, the slots that hold them, and how new tokens reach them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from ..kernels.heads import repeat_heads
from ..kernels.segments import segments
from ..kernels.sparse_attention.packing import Packing


class Place(NamedTuple):
    """Where tokens stand: which document of this call (0 continues the cache), at which position in it."""

    document: Int[Array, "B T"]
    position: Int[Array, "B T"]
    valid: Bool[Array, "B T"]


def place(shape: tuple[int, ...], length: Int[Array, " B"], segment_ids: Int[Array, "B T"] | None) -> Place:
    """The places of new tokens after ``length`` cached ones; padding takes no position."""
    if segment_ids is None:
        position = length[:, None] + jnp.arange(shape[1], dtype=jnp.int32)
        return Place(jnp.zeros(shape, jnp.int32), position, jnp.ones(shape, bool))
    seg = segments(segment_ids)
    rank = jnp.cumsum(seg.valid, axis=1, dtype=jnp.int32) - 1
    start = jax.lax.cummax(jnp.where(seg.first, rank, 0), axis=1)
    position = jnp.where(seg.number == 0, length[:, None], 0) + rank - start
    return Place(seg.number, jnp.maximum(position, 0), seg.valid)


def advance(length: Int[Array, " B"], new: Place) -> Int[Array, " B"]:
    """The length of the last document after the new tokens."""
    last = new.document[:, -1:]
    count = jnp.sum(new.valid & (new.document == last), axis=1, dtype=jnp.int32)
    return jnp.where(last[:, 0] == 0, length, 0) + count


def held(length: Int[Array, " B"], slots: int, sinks: int = 0) -> Place:
    """What the slots hold after ``length`` tokens.

    The first ``sinks`` slots hold the first tokens; of the others, slot s has the last position that is congruent to s
    modulo their number.
    """
    slot, last = jnp.arange(slots, dtype=jnp.int32), length[:, None] - 1
    position = last - (last - slot) % max(slots - sinks, 1)
    position = jnp.where(slot < sinks, jnp.where(slot <= last, slot, -1), jnp.where(position < sinks, -1, position))
    return Place(jnp.zeros_like(position), position, position >= 0)


def slot_of(position: Int[Array, "*axes"], slots: int, sinks: int = 0) -> Int[Array, "*axes"]:
    """The slot of a position; ``slots``, which is none, where there is no room for it."""
    ring = max(slots - sinks, 0)
    return jnp.where(position < sinks, position, sinks + (position - sinks) % ring if ring else slots)


def store(
    buffer: Shaped[Array, "B M ..."], values: Shaped[Array, "B T ..."], new: Place, length: Int[Array, " B"],
    sinks: int = 0,
) -> Shaped[Array, "B M ..."]:  # fmt: skip
    """Writes the last document's newest tokens into their slots; ``length`` is its length after them."""
    slots = buffer.shape[1]
    current = new.valid & (new.document == new.document[:, -1:])
    newest = (new.position >= length[:, None] - max(slots - sinks, 0)) | (new.position < sinks)
    slot = jnp.where(current & newest, slot_of(new.position, slots, sinks), slots)  # one write a slot: others dropped
    return buffer.at[jnp.arange(buffer.shape[0])[:, None], slot].set(values.astype(buffer.dtype), mode="drop")


class Line(NamedTuple):
    """Cached tokens and new ones after them, in the order in which ``sparse_attention`` takes keys.

    Padding and empty slots come first, so that the tokens of a document lie side by side. Queries are the last T.
    """

    place: Place
    packing: Packing | None
    new: int

    @property
    def ids(self) -> Int[Array, "B S"] | None:
        """The ``segment_ids`` of the line."""
        return None if self.packing is None else jnp.where(self.place.valid, self.place.document, -1)

    @property
    def query(self) -> Place:
        """The places of the last T tokens."""
        return Place(*(x[:, -self.new :] for x in self.place))

    def keys(self, past: Shaped[Array, "B M ..."], new: Shaped[Array, "B T ..."]) -> Shaped[Array, "B S ..."]:
        """What the slots hold and the new tokens bring, as the line has them."""
        x = jnp.concatenate([past.astype(new.dtype), new], axis=1)
        return x if self.packing is None else self.packing.pack(x)

    def queries(self, new: Shaped[Array, "B T ..."]) -> Shaped[Array, "B T ..."]:
        """What the last T tokens of the line ask: new tokens, padding in the way of some of them moved aside."""
        return new if self.packing is None else self.packing.pack(self._padded(new))[:, -self.new :]

    def outputs(self, y: Shaped[Array, "B T ..."]) -> Shaped[Array, "B T ..."]:
        """Answers to ``queries``, back in the order of the new tokens."""
        return y if self.packing is None else self.packing.unpack(self._padded(y))[:, -self.new :]

    def _padded(self, x: Shaped[Array, "B T ..."]) -> Shaped[Array, "B S ..."]:
        past = self.place.valid.shape[1] - self.new
        return jnp.pad(x, ((0, 0), (past, 0)) + ((0, 0),) * (x.ndim - 2))


def line(past: Place, new: Place, *, plain: bool) -> Line:
    """The line of slots and new tokens; ``plain`` says that there are no slots and no ``segment_ids``."""
    count = new.valid.shape[1]
    if plain:
        return Line(new, None, count)
    both = Place(*(jnp.concatenate(pair, axis=1) for pair in zip(past, new, strict=True)))
    slots = past.valid.shape[1]
    after = jnp.max(past.position, axis=1, initial=0, keepdims=True) + 1 + jnp.arange(count)
    key = jnp.where(both.valid, jnp.concatenate([past.position, after], axis=1), -1) if slots else both.valid
    order = jnp.argsort(key, axis=1, stable=True)
    packing = Packing(order, jnp.argsort(order, axis=1))
    return Line(Place(*(packing.pack(x) for x in both)), packing, count)


def visible(query: Place, key: Place) -> Bool[Array, "B T S"]:
    """Whether each query may see each key: same document, not later."""
    q, k = (Place(*(z[:, :, None] for z in query)), Place(*(z[:, None, :] for z in key)))
    return (q.document == k.document) & k.valid & (k.position <= q.position)


def gathered(
    q: Float[Array, "B T H K"],
    k: Float[Array, "B S Hk K"],
    v: Float[Array, "B S Hk V"],
    index: Int[Array, "B T G n"],
    bias: Float[Array, "B T G n"] | None = None,
) -> Float[Array, "B T H V"]:
    """Attention to the keys of a list for each query; G is 1, Hk or H, and -1 is no key. No key at all gives 0.

    ``bias`` is added to the scores. Work and memory are those of the lists: for many queries see ``tiled``.
    """
    heads = max(index.shape[2], k.shape[2])
    index = jnp.broadcast_to(jnp.moveaxis(index, 2, 1), (index.shape[0], heads, index.shape[1], index.shape[3]))
    take = jax.vmap(jax.vmap(lambda x, i: x[i]))  # over batch and heads: [S, K] at [T, n]
    k, v = (take(jnp.moveaxis(repeat_heads(x, heads), 2, 1), jnp.maximum(index, 0)) for x in (k, v))
    q = rearrange(q, "B T (G R) K -> B G T R K", G=heads)
    scores = q.shape[-1] ** -0.5 * jnp.einsum("bgtrk,bgtnk->bgtrn", q, k, preferred_element_type=jnp.float32)
    if bias is not None:
        scores = scores + jnp.moveaxis(bias, 2, 1)[..., None, :]
    y = jnp.einsum("bgtrn,bgtnv->bgtrv", masked_softmax(scores, (index >= 0)[..., None, :]).astype(v.dtype), v)
    return rearrange(y, "B G T R V -> B T (G R) V")


def masked_softmax(scores: Float[Array, "*axes n"], mask: Bool[Array, "*#axes n"]) -> Float[Array, "*axes n"]:
    """The softmax over what ``mask`` lets through; 0 where that is nothing."""
    p = jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(scores.dtype).min), axis=-1)
    return jnp.where(mask, p, 0)


def tiled(function: Callable[[PyTree], PyTree], queries: PyTree, tile: int = 256) -> PyTree:
    """``function(queries)`` by so many tokens at a time, so that what it makes on the way never exists for all of them.

    Leaves of ``queries`` and of the result are ``[B, T, ...]``.
    """
    T = jax.tree.leaves(queries)[0].shape[1]
    if tile >= T:
        return function(queries)
    count = -(-T // tile)

    def split(x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), (0, count * tile - T)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], count, tile, *x.shape[2:]), 1, 0)

    def join(y: Array) -> Array:
        y = jnp.moveaxis(y, 0, 1)
        return y.reshape(y.shape[0], count * tile, *y.shape[3:])[:, :T]

    return jax.tree.map(join, jax.lax.map(jax.checkpoint(function), jax.tree.map(split, queries)))
