"""What every token mixer is: a module with a cache passed in and out, and a config that answers for itself."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

Cache = Any
"""What a mixer keeps between calls: a NamedTuple of arrays whose axis 0 is the batch."""

Side = dict[str, Array]
"""What layers of one trunk hand to later layers, ``[B, T, width]`` by name: such as the first layer's values."""


EMBEDDING = "embedding"
"""The entry of ``Side`` that holds the embedded tokens from the start; the others start at zero."""


class Constant(nnx.Variable):
    """An array that is not trained, such as what differs by layer: under the scanned trunk the layer is traced."""


class Mixer(nnx.Module):
    """Mixes tokens along time: ``[B, T, D] -> [B, T, D]``, causally. Only the mixer: no norm, no residual."""

    shared: nnx.Module | None = None
    """Parameters that the layers of one config have in common: a layer alone has its own, a trunk keeps them once."""

    def init_cache(self, batch: int, max_len: int) -> Cache:
        """The cache before the first token, for sequences of up to ``max_len`` tokens; 0 keeps no past.

        A recurrence ignores ``max_len``.
        """
        raise NotImplementedError

    def prefill(
        self, x: Float[Array, "B T D"], cache: Cache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """Mixes the T next tokens, given the cache of those before; the first segment continues the cache."""
        raise NotImplementedError

    def step(self, x_t: Float[Array, "B D"], cache: Cache) -> tuple[Float[Array, "B D"], Cache]:
        """Mixes one token: what decoding runs."""
        y, cache = self.prefill(x_t[:, None], cache)
        return y[:, 0], cache

    def prefill_side(
        self, x: Float[Array, "B T D"], cache: Cache, segment_ids: Int[Array, "B T"] | None, side: Side
    ) -> tuple[Float[Array, "B T D"], Cache, Side]:
        """``prefill`` inside a trunk: reads and writes what layers hand to later ones. Most mixers hand on nothing."""
        return *self.prefill(x, cache, segment_ids), side

    def step_side(self, x_t: Float[Array, "B D"], cache: Cache, side: Side) -> tuple[Float[Array, "B D"], Cache, Side]:
        """``step`` inside a trunk; the entries of ``side`` are ``[B, 1, width]``."""
        if not side:
            return *self.step(x_t, cache), side
        y, cache, side = self.prefill_side(x_t[:, None], cache, None, side)
        return y[:, 0], cache, side

    def __call__(self, x: Float[Array, "B T D"], segment_ids: Int[Array, "B T"] | None = None) -> Float[Array, "B T D"]:
        """Mixes whole sequences: prefill from an empty cache that need not outlive the call."""
        return self.prefill(x, self.init_cache(x.shape[0], 0), segment_ids)[0]


@dataclass(frozen=True)
class MixerConfig:
    """A mixer's settings: JSON-able, comparable, the unit of an ablation."""

    side_written_once: ClassVar[bool] = False
    """Whether each entry of ``side`` is written by one layer, whatever it was before, and passed on as it is by all
    others. Then its last value is what every reader read, which is all that a reversible trunk keeps."""
    prenorm: ClassVar[bool] = True
    """Whether a block normalises what the mixer reads; else the mixer reads the residual stream."""

    def build(
        self, dim: int, *, layer: int | Array = 0, depth: int = 1, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> Mixer:
        """Builds the mixer for model width ``dim``, as layer ``layer`` of ``depth`` (traced under the scanned trunk).

        Parameters are float32; ``dtype`` is what matrix products compute in.
        """
        raise NotImplementedError

    def side(self, dim: int) -> dict[str, int]:
        """Names and widths of what the mixer hands to later layers (see ``Side``)."""
        return {}

    def param_count(self, dim: int) -> int:
        """The number of parameters of one layer alone."""
        raise NotImplementedError

    def shared_count(self, dim: int, depth: int) -> int:
        """The number of parameters that its layers share in a trunk of ``depth`` (see ``Mixer.shared``)."""
        return 0

    def flops_per_token(self, dim: int, T: int) -> float:
        """Floating-point operations of one token's forward pass in a sequence of T; training costs 3 times that."""
        raise NotImplementedError

    def state_bytes(self, dim: int, T: int) -> int:
        """What decoding keeps per sequence after T tokens, in bytes, with float32 entries."""
        raise NotImplementedError


@dataclass(frozen=True)
class ChannelMixerConfig:
    """A channel mixer's settings: a map applied to each token alone."""

    def build(self, dim: int, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> nnx.Module:
        """Builds the channel mixer, ``[..., D] -> [..., D]``."""
        raise NotImplementedError

    def param_count(self, dim: int) -> int:
        """The number of parameters."""
        raise NotImplementedError

    def flops_per_token(self, dim: int) -> float:
        """Floating-point operations of one token's forward pass."""
        raise NotImplementedError


def output_width(config: MixerConfig | ChannelMixerConfig, dim: int) -> int:
    """The width of what the built mixer or channel mixer returns for width ``dim``: for those of a user."""
    run = lambda x: config.build(dim, rngs=nnx.Rngs(0))(x)  # noqa: E731  # pyright: ignore[reportCallIssue]
    return jax.eval_shape(run, jax.ShapeDtypeStruct((1, 1, dim), jnp.float32)).shape[-1]


def cache_bytes(config: MixerConfig, dim: int, T: int) -> int:
    """The bytes of the cache that the built mixer really allocates for one sequence of T tokens."""
    model = nnx.eval_shape(lambda: config.build(dim, rngs=nnx.Rngs(0)))
    cache = jax.eval_shape(lambda: model.init_cache(1, T))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache))
