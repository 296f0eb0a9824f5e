"""Attention to a sliding window and to global tokens, some heads with gaps in the window."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Int

from ..kernels.sparse_attention import Dilated, Window
from .attention import Attention, AttentionConfig
from .parts import head_count


@dataclass(frozen=True)
class LongformerConfig(AttentionConfig):
    """Settings of ``Longformer``: those of ``AttentionConfig``, and

    Args:
      window: how many tokens a token sees, itself included.
      global_tokens: how many first tokens of a document every token sees; StreamingLLM's sinks, of which it has four.
        A text has fewer where it begins, as a prompt and each step of decoding may: then all of them are.
      dilated_heads: how many query heads, the last ones, see every ``dilation``-th token, and so further back.
      dilation: how many.
    """

    window: int = 512  # pyright: ignore[reportIncompatibleVariableOverride]
    global_tokens: int = 1
    dilated_heads: int = 0
    dilation: int = 2

    def sizes(self, dim: int) -> tuple[int, int, int]:
        """See ``AttentionConfig``; checks the settings."""
        heads = head_count(self.heads, dim, self.head_dim)
        for name, least, most in (("global_tokens", 0, None), ("dilation", 1, None), ("dilated_heads", 0, heads)):
            value = getattr(self, name)
            if value < least or (most is not None and value > most):
                bound = f"at least {least}" if most is None else f"{least} to heads={most}"
                raise ValueError(f"longformer: {name}={value}; expected {bound}")
        return super().sizes(dim)

    def mask(self, heads: int, S: int) -> Window | Dilated:
        """See ``AttentionConfig``. Fewer tokens than global ones are all global."""
        sinks = min(self.global_tokens, S)
        if not self.dilated_heads:
            return Window(self.window, sinks)
        plain = heads - self.dilated_heads
        return Dilated(self.window, (1,) * plain + (self.dilation,) * self.dilated_heads, sinks)

    @property
    def sinks(self) -> int:
        """See ``AttentionConfig``."""
        return self.global_tokens

    @property
    def reach(self) -> int:
        """See ``AttentionConfig``."""
        return self.window if not self.dilated_heads else (self.window - 1) * self.dilation + 1

    @property
    def most(self) -> int:
        """See ``AttentionConfig``."""
        return self.window + self.global_tokens

    def listed(self, position: Int[Array, "B 1"], heads: int, kv_heads: int, slots: int) -> Int[Array, "B 1 H n"]:
        """See ``AttentionConfig``."""
        step = np.where(np.arange(heads) < heads - self.dilated_heads, 1, self.dilation)
        near = position[:, :, None, None] - step[:, None] * np.arange(self.window)
        near = jnp.where(near < self.global_tokens, -1, near)
        first = jnp.arange(self.global_tokens)
        first = jnp.where(first <= position[:, :, None, None], first, -1)
        return jnp.concatenate([near, jnp.broadcast_to(first, (*near.shape[:3], self.global_tokens))], axis=-1)

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "Longformer":
        """Builds the mixer."""
        return Longformer(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)


class Longformer(Attention):
    """Causal attention within a window, and to the first tokens.

    Token t sees s where ``t - s < window``, and where ``s < global_tokens``; a dilated head sees, in place of the
    window, ``s = t - dilation * (0 .. window - 1)``.

    Without dilated heads this is StreamingLLM's attention with sinks, but for positions, which here are those of the
    text, as in training, and there are counted within the cache. Where the future is not seen, a global token's own
    attention to all tokens is attention to its past; the separate projections that Longformer's encoder gives it
    are left out. Decoding keeps the window and the global tokens, however long the text.

    Only the mixer: no norm before it, no residual. Each document counts its positions from 0. Projections, norms,
    positions and the arguments are those of ``Attention``.

    Source: Beltagy, Peters & Cohan (2020), Longformer, arXiv 2004.05150; Xiao, Tian, Chen, Han & Lewis (2023),
    attention sinks, arXiv 2309.17453.
    """
