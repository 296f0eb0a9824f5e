"""Several mixers side by side: each reads the block's input, and their outputs add up."""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from .attention import AttentionConfig
from .base import Cache, Mixer, MixerConfig, Side
from .mamba2 import Mamba2Config
from .parts import Keys


@dataclass(frozen=True)
class ParallelConfig(MixerConfig):
    """Settings of ``Parallel``.

    Args:
      left: a mixer.
      right: another; either may be a ``Parallel`` again.
    """

    left: MixerConfig = field(default_factory=lambda: Mamba2Config(out_norm=False))
    right: MixerConfig = field(default_factory=AttentionConfig)

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> "Parallel":
        """Builds the mixer."""
        return Parallel(dim, self, layer=layer, depth=depth, dtype=dtype, rngs=rngs)

    def side(self, dim: int) -> dict[str, int]:
        """What both hand on."""
        return {**self.left.side(dim), **self.right.side(dim)}

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        return self.left.param_count(dim) + self.right.param_count(dim)

    def flops_per_token(self, dim: int, T: int) -> float:
        """Forward operations of one token."""
        return self.left.flops_per_token(dim, T) + self.right.flops_per_token(dim, T)

    def state_bytes(self, dim: int, T: int) -> int:
        """What both keep."""
        return self.left.state_bytes(dim, T) + self.right.state_bytes(dim, T)


class ParallelCache(NamedTuple):
    """What ``Parallel`` keeps."""

    left: Cache
    right: Cache


class Parallel(Mixer):
    """Two mixers in parallel, such as the hybrid heads of Falcon-H1: ``y = left(x) + right(x)``.

    Only the mixer: no norm before it, no residual. Falcon-H1's multipliers are factors of its matrices and no part of
    the layer.

    Args:
      dim: model width.
      config: the settings.
      layer: the layer's number, for the mixers.
      depth: the number of layers, likewise.
      dtype: what products compute in.
      rngs: the key of the parameters.

    Source: Zuo et al. (2025), Falcon-H1, arXiv 2507.22448; github.com/huggingface/transformers.
    """

    def __init__(
        self,
        dim: int,
        config: ParallelConfig = ParallelConfig(),
        *,
        layer: int | Array = 0,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys = Keys(rngs)
        for name in ("left", "right"):
            mixer = getattr(config, name)
            if mixer.shared_count(dim, depth) or not mixer.prenorm:
                raise ValueError(f"parallel: {name}={mixer}; expected one that shares nothing, after a norm")
        self.left = config.left.build(dim, layer=layer, depth=depth, dtype=dtype, rngs=keys.rngs("left"))
        self.right = config.right.build(dim, layer=layer, depth=depth, dtype=dtype, rngs=keys.rngs("right"))

    def init_cache(self, batch: int, max_len: int) -> ParallelCache:
        """Both caches."""
        return ParallelCache(self.left.init_cache(batch, max_len), self.right.init_cache(batch, max_len))

    def prefill(
        self, x: Float[Array, "B T D"], cache: ParallelCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], ParallelCache]:
        """Runs the T next tokens through both."""
        return self.prefill_side(x, cache, segment_ids, {})[:2]

    def prefill_side(
        self, x: Float[Array, "B T D"], cache: ParallelCache, segment_ids: Int[Array, "B T"] | None, side: Side
    ) -> tuple[Float[Array, "B T D"], ParallelCache, Side]:
        """Runs the T next tokens through both; the left one hands on first."""
        left, left_cache, side = self.left.prefill_side(x, cache.left, segment_ids, side)
        right, right_cache, side = self.right.prefill_side(x, cache.right, segment_ids, side)
        return left + right, ParallelCache(left_cache, right_cache), side
