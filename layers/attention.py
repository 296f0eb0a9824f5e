"""Softmax attention: the baseline that the subquadratic mixers are compared with."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels.heads import repeat_heads
from ..kernels.sparse_attention import BigBird, Dilated, Window, sparse_attention
from . import flops
from .base import Mixer, MixerConfig
from .kv_cache import Place, advance, gathered, held, line, place, slot_of, store, visible
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
        if self.window is not None and self.window < 1:
            raise ValueError(f"attention: window={self.window}; expected at least 1")
        if self.rope_dim is not None and (self.rope_dim % 2 or not 0 <= self.rope_dim <= self.head_dim):
            raise ValueError(f"attention: rope_dim={self.rope_dim} must be even, and at most head_dim={self.head_dim}")
        return heads, kv_heads, (heads + 2 * kv_heads) * self.head_dim

    def mask(self, heads: int, S: int) -> Window | Dilated | BigBird | None:
        """What a token sees among S tokens, its own the last; None: all of them."""
        return None if self.window is None else Window(self.window)

    @property
    def sinks(self) -> int:
        """How many first tokens of a document stay in sight."""
        return 0

    @property
    def reach(self) -> int | None:
        """How many of the last tokens decoding must keep besides; None: all."""
        return self.window

    @property
    def most(self) -> int | None:
        """How many tokens a token sees at most; None: all before it."""
        return self.window

    def listed(self, position: Int[Array, "B 1"], heads: int, kv_heads: int, slots: int) -> Int[Array, "B 1 G n"]:
        """The ``most`` tokens that a token at ``position`` sees, by head; -1: none. Asked where slots hold more."""
        raise NotImplementedError

    def capacity(self, T: int) -> int:
        """For how many of T tokens the cache has room."""
        return T if self.reach is None else min(T, self.sinks + self.reach)

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
        attended = flops.attention(heads, self.head_dim, T, self.most)
        return projections + flops.short_conv(self.short_conv, channels) + attended

    def state_bytes(self, dim: int, T: int) -> int:
        """Keys and values of the tokens that may still be seen, their number, and the filter's tail."""
        _, kv_heads, channels = self.sizes(dim)
        return 4 * (2 * self.capacity(T) * kv_heads * self.head_dim + 1) + conv_bytes(self.short_conv, channels)


class AttentionCache(NamedTuple):
    """The last tokens and the sinks of a document, in the slots that ``kv_cache.slot_of`` says."""

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
        """An empty cache for ``max_len`` tokens, or for those that stay in sight if these are fewer.

        A document longer than ``max_len`` loses its oldest tokens.
        """
        empty = jnp.zeros((batch, self.config.capacity(max_len), self.kv_heads, self.config.head_dim), self.dtype)
        return AttentionCache(empty, empty, jnp.zeros(batch, jnp.int32), self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: Any, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T out"], Any]:
        """Attends from the T next tokens to the cached ones and to each other."""
        config = self.config
        qkv, tail = self.conv(self.qkv(x), cache.tail, segment_ids)
        qkv = rearrange(qkv, "B T (H K) -> B T H K", K=config.head_dim)
        q, k, v = jnp.split(qkv, [self.heads, self.heads + self.kv_heads], axis=2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        new = place(x.shape[:2], cache.length, segment_ids)
        q, k = (rope(z, new.position, config.rope_base, config.rope_dim) for z in (q, k))
        y, cache = self.attend(x, q, k, v, new, cache._replace(tail=tail), segment_ids)
        y = rearrange(jnp.where(new.valid[..., None, None], y, 0), "B T H K -> B T (H K)")
        if self.gate is not None:
            y = y * jax.nn.sigmoid(self.gate(x).astype(jnp.float32)).astype(y.dtype)
        return self.out(y), cache

    def attend(
        self,
        x: Float[Array, "B T D"],
        q: Float[Array, "B T H K"],
        k: Float[Array, "B T Hk K"],
        v: Float[Array, "B T Hk K"],
        new: Place,
        cache: Any,
        segment_ids: Int[Array, "B T"] | None,
    ) -> tuple[Float[Array, "B T H K"], Any]:
        """The heads' outputs and the next cache: what kinds of attention differ by."""
        slots, sinks = cache.k.shape[1], self.config.sinks
        if slots == 0:
            written = cache
        else:
            length = advance(cache.length, new)
            k_slots, v_slots = (store(c, z, new, length, sinks) for c, z in ((cache.k, k), (cache.v, v)))
            written = cache._replace(k=k_slots, v=v_slots, length=length)
        if q.shape[1] == 1 and slots > 0:  # the new token's own slot holds nothing that it may still see
            return self.decode(q, new.position, written), written
        mask = self.config.mask(self.heads, slots + q.shape[1])
        if mask is None and slots == 0 and segment_ids is None:
            return jax.nn.dot_product_attention(q, k, v, is_causal=True), written
        past = held(cache.length, slots, sinks)
        if mask is None:
            seen = Place(*(jnp.concatenate(both, axis=1) for both in zip(past, new, strict=True)))
            keys, values = (jnp.concatenate(both, axis=1) for both in ((cache.k, k), (cache.v, v)))
            return jax.nn.dot_product_attention(q, keys, values, mask=visible(new, seen)[:, None]), written
        row = line(past, new, plain=slots == 0 and segment_ids is None)
        keys, values = row.keys(cache.k, k), row.keys(cache.v, v)
        y = sparse_attention(row.queries(q), keys, values, mask=mask, segment_ids=row.ids)
        return row.outputs(y), written

    def decode(self, q: Float[Array, "B 1 H K"], position: Int[Array, "B 1"], cache: Any) -> Float[Array, "B 1 H K"]:
        """Attends from the newest token, which the cache holds already."""
        config, slots = self.config, cache.k.shape[1]
        if config.most is None or slots <= config.most:
            seen, mask = held(cache.length, slots, config.sinks), config.mask(self.heads, slots)
            seeing = seen.valid[:, None, None]
            if mask is not None:
                rule = mask.rule(position[:, :, None], seen.position[:, None], self.kv_heads)
                seeing = seeing & (rule if rule.shape[1] == 1 else repeat_heads(rule, self.heads, axis=1))
            return jax.nn.dot_product_attention(q, cache.k, cache.v, mask=seeing)
        index = config.listed(position, self.heads, self.kv_heads, slots)
        slot = slot_of(index, slots, config.sinks)
        return gathered(q, cache.k, cache.v, jnp.where(index < 0, -1, slot))
