"""Attention to a window of blocks, to random blocks and to global tokens."""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Int

from ..kernels.sparse_attention import BigBird as BigBirdMask
from .attention import Attention, AttentionConfig


@dataclass(frozen=True)
class BigBirdConfig(AttentionConfig):
    """Settings of ``BigBird``: those of ``AttentionConfig``, whose window is counted in blocks, and

    Args:
      window: how many blocks a token sees, its own included, as far as they are not later than itself.
      block_size: tokens of a block.
      random: how many blocks before the window a token sees besides; the draw is one for a block's tokens and for the
        query heads that share keys.
      global_tokens: how many first tokens of a document every token sees; where it has fewer yet, as a prompt and each
        step of decoding may, all of them.
      seed: of the draw.
    """

    window: int = 3  # pyright: ignore[reportIncompatibleVariableOverride]
    block_size: int = 64
    random: int = 3
    global_tokens: int = 128
    seed: int = 0

    def sizes(self, dim: int) -> tuple[int, int, int]:
        """See ``AttentionConfig``; checks the settings."""
        for name, least in (("block_size", 1), ("random", 0), ("global_tokens", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"bigbird: {name}={getattr(self, name)}; expected at least {least}")
        return super().sizes(dim)

    def mask(self, heads: int, S: int) -> BigBirdMask:
        """See ``AttentionConfig``. Fewer tokens than global ones are all global."""
        return BigBirdMask(self.block_size, self.window, self.random, min(self.global_tokens, S), self.seed)

    @property
    def reach(self) -> None:
        """All: a random block may lie anywhere."""

    @property
    def most(self) -> int:
        """See ``AttentionConfig``."""
        return (self.window + self.random) * self.block_size + self.global_tokens

    def listed(self, position: Int[Array, "B 1"], heads: int, kv_heads: int, slots: int) -> Int[Array, "B 1 Hk n"]:
        """See ``AttentionConfig``."""
        table = jnp.asarray(self.mask(heads, slots).table(kv_heads, slots))
        own = position // self.block_size
        near = jnp.broadcast_to((own - jnp.arange(self.window))[:, None, None], (len(own), 1, kv_heads, self.window))
        blocks = jnp.concatenate([near, jnp.moveaxis(table[:, own], 0, 2)], axis=-1)
        tokens = self.block_size * blocks[..., None] + jnp.arange(self.block_size)
        seen = (blocks[..., None] >= 0) & (tokens <= position[:, :, None, None, None]) & (tokens >= self.global_tokens)
        tokens = jnp.where(seen, tokens, -1).reshape(*blocks.shape[:3], -1)
        first = jnp.arange(self.global_tokens)
        first = jnp.where(first <= position[:, :, None, None], first, -1)
        return jnp.concatenate([tokens, jnp.broadcast_to(first, (*blocks.shape[:3], self.global_tokens))], axis=-1)

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "BigBird":
        """Builds the mixer."""
        return BigBird(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)


class BigBird(Attention):
    """Causal attention to a window of blocks, to random blocks before it, and to the first tokens.

    Of what is not later than itself, a token of block n sees blocks ``n - window + 1 .. n``, the ``random`` blocks
    drawn for n from those before, and the first ``global_tokens`` tokens. The paper's window has a block on either
    side, of which the later one is left out here, and its global tokens see all tokens, which here means those before
    them. The draw for a block does not depend on what follows it, so that decoding sees what training saw; since it
    may be anywhere, the cache keeps every token.

    Only the mixer: no norm before it, no residual. Each document counts its positions from 0. Projections, norms,
    positions and the arguments are those of ``Attention``.

    Source: Zaheer et al. (2020), Big Bird, arXiv 2007.14062; github.com/google-research/bigbird.
    """
