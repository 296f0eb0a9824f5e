"""Softmax attention: the baseline that the subquadratic mixers are compared with."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from ..kernels.segments import segments
from . import flops
from .base import Mixer, MixerConfig
from .parts import Keys, RMSNorm, ShortConv, conv_bytes, conv_params, dense, head_count, rope


@dataclass(frozen=True)
class AttentionConfig(MixerConfig):
    """Settings of ``Attention``.

    Args:
      heads: query heads; None: as many as fill the model width.
      head_dim: width of a head, even.
      kv_heads: key and value heads, a divisor of ``heads``; None: as many as query heads.
      window: how many tokens a token sees, itself included; None: all before it.
      qk_norm: RMS norm of each head's q and k, before the rotation.
      rope_base: the rotary positions' base.
      short_conv: width of a causal filter on the projected q, k and v; 0: none.
      rope_dim: how many leading channels of a head turn with the position, an even number; None: all; 0: none.
      gate: multiply the heads' outputs by ``sigmoid(W_g x)``, as Qwen3-Next does.
      qkv_bias: biases on q, k and v, as Qwen2 has.
      out_bias: a bias on the output, as RecurrentGemma has.
      norm_eps: epsilon of the q and k norms.
    """

    heads: int | None = None
    head_dim: int = 64
    kv_heads: int | None = None
    window: int | None = None
    qk_norm: bool = False
    rope_base: float = 10_000.0
    short_conv: int = 0
    rope_dim: int | None = None
    gate: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    norm_eps: float = 1e-5

    def sizes(self, dim: int) -> tuple[int, int, int]:
        """The numbers of query heads, of key heads, and of channels of q, k and v together."""
        heads = head_count(self.heads, dim, self.head_dim)
        kv_heads = self.kv_heads or heads
        if heads % kv_heads:
            raise ValueError(f"attention: heads={heads} must be a multiple of kv_heads={kv_heads}")
        if self.rope_dim is not None and (self.rope_dim % 2 or not 0 <= self.rope_dim <= self.head_dim):
            raise ValueError(f"attention: rope_dim={self.rope_dim} must be even, and at most head_dim={self.head_dim}")
        return heads, kv_heads, (heads + 2 * kv_heads) * self.head_dim

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "Attention":
        """Builds the mixer."""
        return Attention(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        heads, _, channels = self.sizes(dim)
        inner = heads * self.head_dim
        projections = dim * (channels + inner * (2 if self.gate else 1))
        biases = (channels if self.qkv_bias else 0) + (dim if self.out_bias else 0)
        norms = 2 * self.head_dim if self.qk_norm else 0
        return projections + biases + conv_params(self.short_conv, channels) + norms

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token, averaged over a sequence of T."""
        heads, _, channels = self.sizes(dim)
        inner = heads * self.head_dim
        projections = flops.projection(dim, channels) + flops.projection(dim, inner) * (2 if self.gate else 1)
        attended = flops.attention(heads, self.head_dim, T, self.window)
        return projections + flops.short_conv(self.short_conv, channels) + attended

    def state_bytes(self, dim: int, T: int) -> int:
        """Keys and values of the tokens that may still be seen, their number, and the filter's tail."""
        _, kv_heads, channels = self.sizes(dim)
        slots = T if self.window is None else min(T, self.window)
        return 4 * (2 * slots * kv_heads * self.head_dim + 1) + conv_bytes(self.short_conv, channels)


class AttentionCache(NamedTuple):
    """The token at position p of its document lies in slot ``p % M``."""

    k: Float[Array, "B M Hk K"]
    v: Float[Array, "B M Hk K"]
    length: Int[Array, " B"]
    tail: Float[Array, "B tail D"]


class Attention(Mixer):
    """Multi-head softmax attention with rotary positions: ``y = W_o [softmax(q K^T / sqrt(K)) V]``, causal.

    With a gate, ``y = W_o [sigmoid(W_g x) * softmax(q K^T / sqrt(K)) V]``.

    Only the mixer: no norm before it, no residual. Each document counts its positions from 0.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; the softmax is float32.
      rngs: the key of the parameters, drawn as ``parts`` says.
      out: width of the output; None: the model width.

    Source: Vaswani et al. (2017), arXiv 1706.03762; Ainslie et al. (2023), grouped queries, arXiv 2305.13245.
    """

    def __init__(
        self,
        dim: int,
        config: AttentionConfig = AttentionConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        out: int | None = None,
    ):
        keys = Keys(rngs)
        self.config, self.dtype = config, dtype
        self.heads, self.kv_heads, channels = config.sizes(dim)
        self.qkv = dense(keys, "qkv", dim, channels, dtype=dtype, bias=config.qkv_bias)
        self.conv = ShortConv(keys, "conv", config.short_conv, channels)
        self.q_norm = RMSNorm(config.head_dim, eps=config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, eps=config.norm_eps) if config.qk_norm else None
        inner = self.heads * config.head_dim
        self.gate = dense(keys, "gate", dim, inner, dtype=dtype) if config.gate else None
        self.out = dense(keys, "out", inner, dim if out is None else out, dtype=dtype, bias=config.out_bias)

    def init_cache(self, batch: int, max_len: int) -> AttentionCache:
        """An empty cache for ``max_len`` tokens, or for the window if that is less.

        A document longer than ``max_len`` loses its oldest tokens.
        """
        window = self.config.window
        slots = max_len if window is None else min(max_len, window)
        empty = jnp.zeros((batch, slots, self.kv_heads, self.config.head_dim), self.dtype)
        return AttentionCache(empty, empty, jnp.zeros(batch, jnp.int32), self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: AttentionCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T out"], AttentionCache]:
        """Attends from the T next tokens to the cached ones and to each other."""
        config, capacity = self.config, cache.k.shape[1]
        qkv, tail = self.conv(self.qkv(x), cache.tail, segment_ids)
        qkv = rearrange(qkv, "B T (H K) -> B T H K", K=config.head_dim)
        q, k, v = jnp.split(qkv, [self.heads, self.heads + self.kv_heads], axis=2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        new = place(x.shape[:2], cache.length, segment_ids)
        q, k = (rope(z, new.position, config.rope_base, config.rope_dim) for z in (q, k))

        if capacity == 0 and segment_ids is None:
            window = None if config.window is None else (config.window - 1, 0)
            y = jax.nn.dot_product_attention(q, k, v, is_causal=True, local_window_size=window)
        else:
            written = cache if capacity == 0 else write(cache, k, v, new, tail)
            if x.shape[1] == 1 and capacity > 0:  # the new token's own slot holds nothing that it may still see
                seen, keys, values = held(written.length, capacity), written.k, written.v
            else:
                past = held(cache.length, capacity)
                seen = Place(*(jnp.concatenate(both, axis=1) for both in zip(past, new, strict=True)))
                keys, values = (jnp.concatenate(both, axis=1) for both in ((cache.k, k), (cache.v, v)))
            y = jax.nn.dot_product_attention(q, keys, values, mask=visible(new, seen, config.window)[:, None])
            y = jnp.where(new.valid[..., None, None], y, 0)
            cache = written
        y = rearrange(y, "B T H K -> B T (H K)")
        if self.gate is not None:
            y = y * jax.nn.sigmoid(self.gate(x).astype(jnp.float32)).astype(y.dtype)
        return self.out(y), cache


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


def held(length: Int[Array, " B"], slots: int) -> Place:
    """What the slots hold after ``length`` tokens: slot s has the last position congruent to s."""
    last = length[:, None] - 1
    position = last - (last - jnp.arange(slots, dtype=jnp.int32)) % max(slots, 1)
    return Place(jnp.zeros_like(position), position, position >= 0)


def visible(query: Place, key: Place, window: int | None) -> Bool[Array, "B T S"]:
    """Whether each query may see each key: same document, not later, within the window."""
    q, k = (Place(*(z[:, :, None] for z in query)), Place(*(z[:, None, :] for z in key)))
    mask = (q.document == k.document) & k.valid & (k.position <= q.position)
    return mask if window is None else mask & (k.position > q.position - window)


def write(
    cache: AttentionCache,
    k: Float[Array, "B T Hk K"],
    v: Float[Array, "B T Hk K"],
    new: Place,
    tail: Float[Array, "B tail D"],
) -> AttentionCache:
    """Stores the last document's newest tokens, each in its slot."""
    slots = cache.k.shape[1]
    current, length = new.valid & (new.document == new.document[:, -1:]), advance(cache.length, new)
    keep = current & (new.position >= length[:, None] - slots)  # one write a slot: a scatter has no order
    slot = jnp.where(keep, new.position % slots, slots)  # out of range: dropped
    row = jnp.arange(k.shape[0])[:, None]
    return AttentionCache(
        cache.k.at[row, slot].set(k.astype(cache.k.dtype), mode="drop"),
        cache.v.at[row, slot].set(v.astype(cache.v.dtype), mode="drop"),
        length,
        tail,
    )
