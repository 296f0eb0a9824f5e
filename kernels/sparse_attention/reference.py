"""The definition of sparse attention: the mask as an array. It is the oracle; it is not meant to be fast."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from ..checks import state_dtype
from ..heads import repeat_heads
from .masks import Blocks, places


def unsupported(**_) -> str | None:
    """The definition runs everything."""
    return None


def run(q, k, v, *, mask, scale, segment_ids):
    """See ``sparse_attention``."""
    dtype, H = state_dtype(q, k, v), q.shape[2]
    count = counts(mask, q.shape[1], H, k.shape, segment_ids)
    q, k, v_ = q.astype(dtype), *(repeat_heads(x, H).astype(dtype) for x in (k, v))
    scores = jnp.einsum("bthk,bshk->bhts", scale * q, k, precision="highest")
    scores = jnp.where(count > 0, scores, -jnp.inf)
    most = lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    p = count * jnp.exp(scores - jnp.where(jnp.isfinite(most), most, 0))
    total = jnp.sum(p, axis=-1, keepdims=True)
    return jnp.einsum("bhts,bshv->bthv", p / jnp.where(total > 0, total, 1), v_, precision="highest").astype(v.dtype)


def counts(mask, T: int, H: int, keys: tuple[int, ...], segment_ids) -> Int[Array, "B H T S"]:
    """How often each query sees each key: once or not at all, but for what a list of ``Blocks`` names twice."""
    B, S, Hk, _ = keys
    key = places((B, S), segment_ids)
    query = [x[:, S - T :, None] for x in key]
    index = jnp.arange(S)
    allowed = (query[0] == key.document[:, None]) & query[2] & key.valid[:, None] & (index <= index[S - T :, None])
    if isinstance(mask, Blocks):
        start = jnp.repeat(mask.start, mask.query_block, axis=1)[:, :T]
        start = jnp.moveaxis(start, 2, 1)[..., None, :]  # [B, G, T, 1, n]
        offset = index[:, None] - start
        seen = jnp.sum((start >= 0) & (offset >= 0) & (offset < mask.size), axis=-1)
    else:
        seen = mask.rule(query[1], key.position[:, None], Hk)
    return jnp.where(allowed[:, None], repeat_heads(seen, H, axis=1), 0).astype(jnp.int32)
