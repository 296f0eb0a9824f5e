"""Lists of blocks as kernels take them: intervals of keys, so that documents are intervals too."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Int

from .lists import Lists
from .masks import Blocks, places
from .packing import Packing


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Listed:
    """Query t sees the keys in ``lo[t] .. hi[t]``, and not after its own, of the intervals of its list."""

    start: Int[Array, "B N #G n"] | Any
    end: Int[Array, "B N #G n"] | Any
    """Where an interval ends, at most ``size`` from its start; at the start if it is unused."""
    lo: Int[Array, "B T"] | Any | None
    hi: Int[Array, "B T"] | Any
    size: int = jax.tree.static()
    queries: int = jax.tree.static()
    """Queries that share a list."""


def listed(mask: Blocks, T: int, keys: tuple[int, int], segment_ids) -> tuple[Listed, Packing | None]:
    """What the last T tokens see of ``keys``, B and S; with documents, in the order that a packing gives to keys.

    It moves padding behind the others, so that documents, and blocks in them, are intervals, and no key moves away from
    the queries that see it.
    """
    (B, S), start, size = keys, jnp.asarray(mask.start), mask.size
    end = jnp.where(start < 0, start, jnp.minimum(start + size, S))
    if segment_ids is None:
        hi = jnp.broadcast_to(jnp.arange(S - T, S, dtype=jnp.int32), (B, T))
        return Listed(start, end, None, hi, size, mask.query_block), None
    valid = segment_ids >= 0
    order = jnp.argsort(~valid, axis=1, stable=True)
    count = jnp.cumsum(valid, axis=1, dtype=jnp.int32)
    before = jax.vmap(lambda count, at: jnp.where(at > 0, count[at - 1], 0))
    start, end = (before(count, jnp.clip(x, 0, S)) for x in (start, end))
    lo = count - 1 - places((B, S), segment_ids).position
    hi = jnp.where(valid, count - 1, -1)
    lists = Listed(start, end, lo[:, S - T :], hi[:, S - T :], size, mask.query_block)
    return lists, Packing(order, jnp.argsort(order, axis=1))


def of_part(lists: Lists | Listed, S: int) -> Listed:
    """The same of a part of a mask, in which all that a list names is of the queries' document."""
    if isinstance(lists, Listed):
        return lists
    end = jnp.where(lists.start < 0, lists.start, jnp.minimum(lists.start + lists.size, S))
    return Listed(lists.start, end, lists.lo, lists.hi, lists.size, lists.queries)


def axes(q, k, mask: Blocks, **_) -> dict[str, Any]:
    """The axes of the arrays."""
    of = {q.shape[2]: "H", k.shape[2]: "Hk"}.get(mask.start.shape[2], "all")
    return {
        "q": "B T H K", "k": "B S Hk K", "v": "B S Hk V", "segment_ids": "B S",
        "mask": replace(mask, start=f"B N {of} n"),
    }  # fmt: skip


@partial(jax.jit, static_argnums=0)
def run(attend, q, k, v, *, mask, scale, segment_ids):
    """``attend(q, k, v, Listed)``, where a query head with lists of its own has keys of its own."""
    low, dtype = jnp.result_type(q, k, v), v.dtype
    q, k, v = (x.astype(low) for x in (q * scale, k, v))
    lists, packing = listed(mask, q.shape[1], k.shape[:2], segment_ids)
    if packing is not None:
        k, v = map(packing.pack, (k, v))
    q = rearrange(q, "B T (G R) K -> B T G R K", G=max(k.shape[2], mask.start.shape[2]))
    return rearrange(attend(q, k, v, lists), "B T G R V -> B T (G R) V").astype(dtype)
