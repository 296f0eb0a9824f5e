"""Reformer's attention: queries are keys, and a token sees those of its past that hash to its bucket."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from . import flops
from .base import Constant, Mixer, MixerConfig
from .kv_cache import Place, advance, held, line, place, store
from .parts import Keys, ShortConv, conv_bytes, conv_params, dense, head_count, rope

ALONE = -1e5
"""The score of a token with itself, as in the official code: it counts only where there is no other."""


@dataclass(frozen=True)
class ReformerConfig(MixerConfig):
    """Settings of ``Reformer``.

    Args:
      heads: heads; None: as many as fill the model width.
      head_dim: width of a head, even.
      buckets: hash buckets, an even number.
      rounds: how many hashes a token has; it sees what any of them shows.
      chunk: how many tokens of a bucket are a chunk; a token sees its own chunk and the one before.
      rope_base: the rotary positions' base.
      rope_dim: how many leading channels of a head turn with the position, an even number; None: all; 0: none.
      short_conv: width of a causal filter on the projected qk and v; 0: none.
    """

    heads: int | None = None
    head_dim: int = 64
    buckets: int = 64
    rounds: int = 4
    chunk: int = 64
    rope_base: float = 10_000.0
    rope_dim: int | None = None
    short_conv: int = 0

    def sizes(self, dim: int) -> tuple[int, int]:
        """The numbers of heads, and of channels of qk and v together; checks the settings."""
        if self.buckets < 2 or self.buckets % 2:
            raise ValueError(
                f"reformer: buckets={self.buckets} must be a positive multiple of 2: directions and opposites"
            )
        for name in ("rounds", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"reformer: {name}={getattr(self, name)}; expected at least 1")
        if self.rope_dim is not None and (self.rope_dim % 2 or not 0 <= self.rope_dim <= self.head_dim):
            raise ValueError(f"reformer: rope_dim={self.rope_dim} must be even, and at most head_dim={self.head_dim}")
        heads = head_count(self.heads, dim, self.head_dim)
        return heads, 2 * heads * self.head_dim

    @property
    def most(self) -> int:
        """How many tokens a token sees at most."""
        return 2 * self.chunk * self.rounds

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "Reformer":
        """Builds the mixer."""
        return Reformer(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def param_count(self, dim: int) -> int:
        """The number of parameters; the directions of the hashes are not trained."""
        _, channels = self.sizes(dim)
        return dim * channels + channels // 2 * dim + conv_params(self.short_conv, channels)

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token, averaged over a sequence of T, as if all rounds showed others."""
        heads, channels = self.sizes(dim)
        projections = flops.projection(dim, channels) + flops.projection(channels // 2, dim)
        hashes = heads * flops.projection(self.head_dim, self.rounds * self.buckets // 2)
        attended = flops.attention(heads, self.head_dim, T, self.most)
        return projections + flops.short_conv(self.short_conv, channels) + hashes + attended

    def state_bytes(self, dim: int, T: int) -> int:
        """qk, v and the buckets of all tokens, their number, and the filter's tail."""
        heads, channels = self.sizes(dim)
        return 4 * (T * (channels + heads * self.rounds) + 1) + conv_bytes(self.short_conv, channels)


class ReformerCache(NamedTuple):
    """The token at position p of its document lies in slot p; ``bucket`` is -1 where there is none."""

    qk: Float[Array, "B M H K"]
    v: Float[Array, "B M H K"]
    bucket: Int[Array, "B M H R"]
    length: Int[Array, " B"]
    tail: Float[Array, "B tail D"]


class Reformer(Mixer):
    """Attention within buckets of a locality-sensitive hash: ``y = W_o [softmax(q_t . k_s / sqrt(K)) v_s]``.

    One projection qk gives queries q = qk and keys ``k = qk / |qk|``. A hash multiplies qk by random directions R,
    ``[K, buckets / 2]``, and is the argmax of ``[qk R; -qk R]``: near vectors fall in one bucket. Per round, the tokens
    of a bucket are cut in chunks of ``chunk``, in their order, and a token sees the tokens of its bucket that lie in
    its own chunk and the one before, and are not later than itself. It attends to what any of the ``rounds`` shows:
    rounds are weighed by their normalisers, and a token that several show counts once. To itself it attends only if
    there is nothing else.

    The paper sorts all tokens by bucket and cuts that row, whose borders then depend on how full other buckets will be
    in the end. Cut within each bucket, they depend on the past alone, and decoding sees what training saw. The paper
    draws R anew for each batch; here it is drawn once. It adds positions to the trunk's embedding; here q and k are
    rotated after hashing.

    Only the mixer: no norm before it, no residual. Each document counts its positions from 0.

    Args:
      dim: model width.
      config: the settings.
      layer: unused.
      depth: unused.
      dtype: what products compute in; the softmax and the hash are float32.
      rngs: the key of the parameters, drawn as ``parts`` says, and of R, which is normal.

    Source: Kitaev, Kaiser & Levskaya (2020), Reformer, arXiv 2001.04451; github.com/google/trax.
    """

    def __init__(
        self,
        dim: int,
        config: ReformerConfig = ReformerConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys = Keys(rngs)
        self.config, self.dtype = config, dtype
        self.heads, channels = config.sizes(dim)
        self.qkv = dense(keys, "qkv", dim, channels, dtype=dtype)
        self.conv = ShortConv(keys, "conv", config.short_conv, channels)
        shape = (self.heads, config.head_dim, config.rounds, config.buckets // 2)
        self.directions = Constant(jax.random.normal(keys("directions"), shape, jnp.float32))
        self.out = dense(keys, "out", channels // 2, dim, dtype=dtype)

    def init_cache(self, batch: int, max_len: int) -> ReformerCache:
        """An empty cache for ``max_len`` tokens, which no document may exceed."""
        shape = (batch, max_len, self.heads)
        empty = jnp.zeros((*shape, self.config.head_dim), self.dtype)
        bucket = jnp.full((*shape, self.config.rounds), -1, jnp.int32)
        return ReformerCache(empty, empty, bucket, jnp.zeros(batch, jnp.int32), self.conv.init_tail(batch))

    def prefill(
        self, x: Float[Array, "B T D"], cache: ReformerCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], ReformerCache]:
        """Attends from the T next tokens to the cached ones and to each other."""
        config, slots = self.config, cache.qk.shape[1]
        projected, tail = self.conv(self.qkv(x), cache.tail, segment_ids)
        qk, v = jnp.split(rearrange(projected, "B T (H K) -> B T H K", K=config.head_dim), 2, axis=2)
        new = place(x.shape[:2], cache.length, segment_ids)
        bucket = self.hash(qk)
        qk = rope(qk, new.position, config.rope_base, config.rope_dim)
        written = cache._replace(tail=tail)
        if slots:
            length = advance(cache.length, new)
            qk_slots, v_slots = (store(c, z, new, length) for c, z in ((cache.qk, qk), (cache.v, v)))
            written = ReformerCache(qk_slots, v_slots, store(cache.bucket, bucket, new, length), length, tail)
        if x.shape[1] == 1 and slots > 0:
            y = self.decode(qk, bucket, new.position, written)
        else:
            row = line(held(cache.length, slots), new, plain=slots == 0 and segment_ids is None)
            rows = row.keys(cache.qk, qk), row.keys(cache.v, v), row.keys(cache.bucket, bucket)
            y = row.outputs(self.sorted(*rows, row.place)[:, -row.new :])
        y = jnp.where(new.valid[..., None, None], y, 0)
        return self.out(rearrange(y, "B T H K -> B T (H K)")), written

    def hash(self, qk: Float[Array, "B T H K"]) -> Int[Array, "B T H R"]:
        """The bucket of each token in each round."""
        qk = jax.lax.stop_gradient(qk).astype(jnp.float32)
        turned = jnp.einsum("bthk,hkrn->bthrn", qk, self.directions[...], precision="highest")
        return jnp.argmax(jnp.concatenate([turned, -turned], axis=-1), axis=-1).astype(jnp.int32)

    def sorted(
        self,
        qk: Float[Array, "B S H K"],
        v: Float[Array, "B S H K"],
        bucket: Int[Array, "B S H R"],
        where: Place,
    ) -> Float[Array, "B S H K"]:
        """All tokens of a line: sorted by bucket in each round, attended to in tiles, and the rounds put together."""
        chunk, rounds = self.config.chunk, self.config.rounds
        B, S, H, _ = qk.shape
        groups = where.document[:, :, None, None] * self.config.buckets + bucket
        groups = jnp.where(where.valid[:, :, None, None], groups, jnp.iinfo(jnp.int32).max)
        groups = jnp.moveaxis(groups, 1, -1)  # [B, H, R, S]
        order = jnp.argsort(groups, axis=-1, stable=True)
        sorted_groups = jnp.take_along_axis(groups, order, axis=-1)
        index = jnp.arange(S, dtype=jnp.int32)
        first = jnp.concatenate([jnp.ones_like(sorted_groups[..., :1], bool), jnp.diff(sorted_groups) != 0], axis=-1)
        rank = index - jax.lax.cummax(jnp.where(first, index, 0), axis=3)
        back = jnp.argsort(order, axis=-1)
        cut = jnp.take_along_axis(rank // chunk, back, axis=-1)  # each token's chunk in its bucket, by round

        # A token's own chunk and the one before begin less than two tiles before it.
        count = -(-S // chunk)
        pad = count * chunk - S

        def tiles(x: Array, fill: int = 0) -> Array:
            """``[B, H, S, ...]`` to what is seen from each tile, ``[B, H, count, 3 chunk, ...]``."""
            x = jnp.pad(x, ((0, 0), (0, 0), (2 * chunk, pad)) + ((0, 0),) * (x.ndim - 3), constant_values=fill)
            x = x.reshape(B, H, count + 2, chunk, *x.shape[3:])
            return jnp.concatenate([x[:, :, :-2], x[:, :, 1:-1], x[:, :, 2:]], axis=3)

        qk, v = (jnp.moveaxis(x, 2, 1) for x in (qk, v))  # [B, H, S, K]
        marks = jnp.moveaxis(jnp.stack([groups, cut], axis=-1), 2, 3)  # [B, H, S, R, 2]
        position = jnp.broadcast_to(jnp.arange(S, dtype=jnp.int32), (B, H, S))

        def one(r: int) -> tuple[Array, Array]:
            at = order[:, :, r]
            take = lambda x: jnp.take_along_axis(x, at.reshape(B, H, S, *(1,) * (x.ndim - 3)), axis=2)  # noqa: E731
            rows, values, places, marked = (
                tiles(take(qk)),
                tiles(take(v)),
                tiles(take(position), S),
                tiles(take(marks), -1),
            )
            q, here, mark = rows[:, :, :, 2 * chunk :], places[:, :, :, 2 * chunk :], marked[:, :, :, 2 * chunk :]
            shown = []
            for other in range(rounds):
                group, cut = (mark[..., None, other, i] - marked[:, :, :, None, :, other, i] for i in (0, 1))
                shown.append((group == 0) & (cut >= 0) & (cut <= 1))
            times = sum(each.astype(jnp.int32) for each in shown)
            seen = shown[r] & (places[:, :, :, None] <= here[..., None])
            scores = self.scores(q, rows, places[:, :, :, None] == here[..., None])
            scores = jnp.where(seen, scores - jnp.log(jnp.maximum(times, 1)), -jnp.inf)
            total = jax.nn.logsumexp(scores, axis=-1, keepdims=True)
            safe = jnp.where(jnp.isfinite(total), total, 0)
            y = jnp.einsum("bhcts,bhcsk->bhctk", jnp.exp(scores - safe).astype(v.dtype), values)

            def undo(x: Array) -> Array:
                return jnp.take_along_axis(x.reshape(B, H, count * chunk, -1)[:, :, :S], back[:, :, r, :, None], axis=2)

            return undo(y), undo(total)[..., 0]

        y, total = zip(*(one(r) for r in range(rounds)), strict=True)
        weight = jax.nn.softmax(jnp.where(where.valid[:, None], jnp.stack(total), 0.0), axis=0)
        y = jnp.einsum("rbhs,rbhsk->bshk", weight, jnp.stack(y).astype(jnp.float32))
        return y.astype(v.dtype)

    def scores(
        self, q: Float[Array, "*axes t K"], rows: Float[Array, "*axes s K"], same: Bool[Array, "*axes t s"]
    ) -> Float[Array, "*axes t s"]:
        """Products of queries with keys, which are the rows at length 1."""
        wide = rows.astype(jnp.float32)
        keys = wide * jax.lax.rsqrt(jnp.sum(wide**2, axis=-1, keepdims=True) + 1e-6)
        products = jnp.einsum("...tk,...sk->...ts", q, keys.astype(q.dtype), preferred_element_type=jnp.float32)
        return jnp.where(same, ALONE, q.shape[-1] ** -0.5 * products)

    def decode(
        self,
        qk: Float[Array, "B 1 H K"],
        bucket: Int[Array, "B 1 H R"],
        position: Int[Array, "B 1"],
        cache: ReformerCache,
    ) -> Float[Array, "B 1 H K"]:
        """Attends from the newest token, which the cache holds already: counts its buckets, and reads what it sees."""
        chunk, slots = self.config.chunk, cache.qk.shape[1]
        valid = held(cache.length, slots).valid
        same = (cache.bucket == bucket) & valid[:, :, None, None]
        rank = jnp.cumsum(same, axis=1) - 1
        own = jnp.max(jnp.where(same, rank, -1), axis=1, keepdims=True) // chunk
        seen = jnp.any(same & (rank // chunk >= own - 1), axis=-1)  # [B, M, H]
        recent = jnp.where(seen, jnp.arange(slots)[:, None], -1)
        if slots > self.config.most:
            recent, _ = jax.lax.top_k(jnp.moveaxis(recent, 1, 2), self.config.most)
        else:
            recent = jnp.moveaxis(recent, 1, 2)
        rows = jnp.moveaxis(cache.qk, 2, 1)
        take = lambda x: jnp.take_along_axis(x, jnp.maximum(recent, 0)[..., None], axis=2)  # noqa: E731
        rows, values = take(rows), take(jnp.moveaxis(cache.v, 2, 1))
        q = jnp.moveaxis(qk, 2, 1)
        scores = self.scores(q, rows, (recent == position[:, :, None])[:, :, None])
        p = jax.nn.softmax(jnp.where((recent >= 0)[:, :, None], scores, -jnp.inf), axis=-1)
        return jnp.moveaxis(jnp.einsum("bhts,bhsk->bhtk", p.astype(values.dtype), values), 2, 1)
