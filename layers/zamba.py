"""Zamba: a recurrent layer fed by a transformer block whose parameters all such layers share."""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from . import flops
from .attention import Attention, AttentionCache, AttentionConfig
from .base import EMBEDDING, Cache, ChannelMixerConfig, Mixer, MixerConfig, Side
from .mamba import MambaConfig
from .mlp import GeluMLPConfig
from .parts import Keys, RMSNorm, dense


@dataclass(frozen=True)
class ZambaConfig(MixerConfig):
    """Settings of ``Zamba``.

    Args:
      mixer: the layer's own mixer.
      attention: the shared block's attention, which reads twice the model width.
      mlp: the shared block's channel mixer.
      norm_eps: epsilon of the norms.
    """

    prenorm: ClassVar[bool] = False

    mixer: MixerConfig = field(default_factory=MambaConfig)
    attention: AttentionConfig = field(default_factory=lambda: AttentionConfig(rope_dim=0))
    mlp: ChannelMixerConfig = field(default_factory=lambda: GeluMLPConfig(gated=True, exact=True))
    norm_eps: float = 1e-5

    def attended(self, dim: int) -> int:
        """The width of the attention's heads together."""
        return self.attention.sizes(2 * dim)[0] * self.attention.head_dim

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "Zamba":
        """Builds the mixer."""
        return Zamba(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def side(self, dim: int) -> dict[str, int]:
        """The embedding, and what the mixer hands on."""
        return {EMBEDDING: dim, **self.mixer.side(dim)}

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        return self.shared_count(dim, 1) + dim * dim + dim + self.mixer.param_count(dim)

    def shared_count(self, dim: int, depth: int) -> int:
        """The number of parameters of the shared block; its attention writes the model width alone."""
        halved = dim * (self.attended(dim) + self.attention.out_bias)
        return 3 * dim + self.attention.param_count(2 * dim) - halved + self.mlp.param_count(dim)

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token, averaged over a sequence of T."""
        attention = self.attention.flops_per_token(2 * dim, T) - flops.projection(self.attended(dim), dim)
        shared = attention + self.mlp.flops_per_token(dim)
        return shared + flops.projection(dim, dim) + self.mixer.flops_per_token(dim, T)

    def state_bytes(self, dim: int, T: int) -> int:
        """What the attention and the mixer keep."""
        return self.attention.state_bytes(2 * dim, T) + self.mixer.state_bytes(dim, T)


class SharedBlock(nnx.Module):
    """``mlp(norm(attention(norm([x, e]))))``, of the stream x and the embedded tokens e: a block without residuals."""

    def __init__(self, dim: int, config: ZambaConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        keys = Keys(rngs)
        self.norm = RMSNorm(2 * dim, eps=config.norm_eps)
        self.attention = Attention(2 * dim, config.attention, out=dim, dtype=dtype, rngs=keys.rngs("attention"))
        self.mlp_norm = RMSNorm(dim, eps=config.norm_eps)
        self.mlp = config.mlp.build(dim, dtype=dtype, rngs=keys.rngs("mlp"))

    def __call__(
        self,
        x: Float[Array, "B T D"],
        embedding: Float[Array, "B T D"],
        cache: AttentionCache,
        segment_ids: Int[Array, "B T"] | None,
    ) -> tuple[Float[Array, "B T D"], AttentionCache]:
        """The block on the T next tokens."""
        both = jnp.concatenate([x, embedding.astype(x.dtype)], axis=-1)
        y, cache = self.attention.prefill(self.norm(both), cache, segment_ids)
        return self.mlp(self.mlp_norm(y)), cache


class ZambaCache(NamedTuple):
    """What ``Zamba`` keeps: each layer its own keys and values, though the parameters are shared."""

    attention: AttentionCache
    mixer: Cache


class Zamba(Mixer):
    """The Zamba layer: ``y = mixer(norm(x + W block(x, e)))``, where all layers share ``block`` (see ``SharedBlock``).

    x is the residual stream, which the layer normalises itself, and e the embedded tokens, which the trunk hands on;
    alone, a layer takes x for both. W is the layer's own. No residual: what the block says reaches this mixer only.

    As in the official code, attention reads twice the model width and has no positions. There it scales by
    ``(K / 2)^-1/2``, here by ``K^-1/2``, which a factor on W_q makes up for.

    Args:
      dim: model width.
      config: the settings.
      layer: the layer's number, for the mixer.
      depth: the number of layers, likewise.
      dtype: what products compute in; norms are float32.
      rngs: the key of the parameters, drawn as ``parts`` says.

    Source: Glorioso et al. (2024), Zamba, arXiv 2405.16712; github.com/huggingface/transformers.
    """

    shared: SharedBlock

    def __init__(
        self,
        dim: int,
        config: ZambaConfig = ZambaConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if config.mixer.shared_count(dim, depth):
            raise ValueError(f"zamba: mixer={config.mixer}; expected one whose layers share nothing")
        keys = Keys(rngs)
        self.shared = SharedBlock(dim, config, dtype=dtype, rngs=keys.rngs("shared"))
        self.linear = dense(keys, "linear", dim, dim, dtype=dtype)
        self.norm = RMSNorm(dim, eps=config.norm_eps)
        self.mixer = config.mixer.build(dim, layer=layer, depth=depth, dtype=dtype, rngs=keys.rngs("mixer"))

    def init_cache(self, batch: int, max_len: int) -> ZambaCache:
        """The caches of the attention, for ``max_len`` tokens, and of the mixer."""
        return ZambaCache(self.shared.attention.init_cache(batch, max_len), self.mixer.init_cache(batch, max_len))

    def prefill(
        self, x: Float[Array, "B T D"], cache: ZambaCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], ZambaCache]:
        """Runs the T next tokens; x counts as their embedding."""
        return self.prefill_side(x, cache, segment_ids, {})[:2]

    def prefill_side(
        self, x: Float[Array, "B T D"], cache: ZambaCache, segment_ids: Int[Array, "B T"] | None, side: Side
    ) -> tuple[Float[Array, "B T D"], ZambaCache, Side]:
        """Runs the T next tokens after what the caches hold."""
        said, attended = self.shared(x, side.get(EMBEDDING, x), cache.attention, segment_ids)
        normed = self.norm(x + self.linear(said).astype(x.dtype))
        y, mixed, side = self.mixer.prefill_side(normed, cache.mixer, segment_ids, side)
        return y, ZambaCache(attended, mixed), side
