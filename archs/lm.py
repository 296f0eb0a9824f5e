"""The language model: one class for every architecture, since what differs between them is in ``LMConfig``."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..layers.base import EMBEDDING, Cache, MixerConfig, Side
from ..layers.parts import Keys, dense
from ..layers.residual import RESIDUALS, Coupled, Streams, rebuilt
from ..layers.ternary import TernaryProjection, to_ternary
from .config import LMConfig

UNROLLED = 4
"""Up to this depth blocks run one after another. A scan stores what its backward pass needs in stacks over the layers,
which takes a CPU a sixth of the step of a small model, while four blocks compile as quickly as a scan."""


def _norm(config: LMConfig, width: int, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.RMSNorm | nnx.LayerNorm:
    """A normalisation that computes in float32, whatever ``dtype`` it returns."""
    kind = nnx.RMSNorm if config.norm == "rms" else nnx.LayerNorm
    return kind(width, epsilon=config.norm_eps, dtype=dtype, param_dtype=jnp.float32, rngs=rngs)


class Block(nnx.Module):
    """One layer: ``x + mixer(norm(x))``, then ``x + mlp(mlp_norm(x))`` where the config has a channel mixer.

    x is the residual stream, or the one of several that a branch reads (see ``residual``). Streams stay float32, so
    that a deep sum in bfloat16 loses nothing.
    """

    def __init__(
        self,
        config: LMConfig,
        mixer: MixerConfig,
        *,
        layer: int | Array,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        keys = Keys(rngs)
        self.residual = config.residual
        self.norm = _norm(config, config.dim, dtype, rngs) if mixer.prenorm else None
        self.mixer = mixer.build(config.dim, layer=layer, depth=config.depth, dtype=dtype, rngs=keys.rngs("mixer"))
        if self.mixer.shared is not None:
            self.mixer.shared = None  # the trunk keeps it once, and lends it
        self.mlp_norm = None if config.mlp is None else _norm(config, config.dim, dtype, rngs)
        self.mlp = None if config.mlp is None else config.mlp.build(config.dim, dtype=dtype, rngs=keys.rngs("mlp"))

    def init_cache(self, batch: int, max_len: int) -> Cache:
        """The mixer's cache before the first token."""
        return self.mixer.init_cache(batch, max_len)

    def prefill(
        self, x: Streams, cache: Cache, segment_ids: Int[Array, "B T"] | None, side: Side
    ) -> tuple[Streams, Cache, Side]:
        """The layer on the T next tokens, given the cache of those before and what earlier layers hand on."""
        normed = self._normed(RESIDUALS[self.residual].read(x))
        y, cache, side = self.mixer.prefill_side(normed, cache, segment_ids, side)
        return self._add(x, y), cache, side

    def step(self, x_t: Streams, cache: Cache, side: Side) -> tuple[Streams, Cache, Side]:
        """The layer on one token."""
        x = RESIDUALS[self.residual].read(x_t)
        y, cache, side = self.mixer.step_side(x if self.norm is None else self.norm(x), cache, side)
        return self._add(x_t, y), cache, side

    def __call__(self, x: Streams, segment_ids: Int[Array, "B T"] | None = None, side: Side | None = None) -> Streams:
        """The layer on whole sequences, alone unless ``side`` says what earlier layers hand on."""
        batch = RESIDUALS[self.residual].read(x).shape[0]
        return self.prefill(x, self.init_cache(batch, 0), segment_ids, side or {})[0]

    def mix_tokens(
        self, x: Float[Array, "B T D"], side: Side, segment_ids: Int[Array, "B T"] | None
    ) -> tuple[Float[Array, "B T D"], Side]:
        """The branch of the mixer, on whole sequences: what it adds to the stream."""
        y, _, side = self.mixer.prefill_side(self._normed(x), self.init_cache(x.shape[0], 0), segment_ids, side)
        return y, side

    def mix_channels(
        self, x: Float[Array, "... D"], side: Side, segment_ids: Int[Array, "B T"] | None
    ) -> tuple[Float[Array, "... D"], Side]:
        """The branch of the channel mixer, where there is one."""
        assert self.mlp is not None
        assert self.mlp_norm is not None
        return self.mlp(self.mlp_norm(x)), side

    def _normed(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        # A norm is cheaper to compute again than to store.
        return x if self.norm is None else jax.checkpoint(lambda norm, x: norm(x))(self.norm, x)

    def _add(self, x: Streams, y: Float[Array, "... D"]) -> Streams:
        """The streams after the mixer gave y, and after the channel mixer."""
        residual = RESIDUALS[self.residual]
        x = residual.add(x, y)
        return x if self.mlp is None else residual.add(x, self.mix_channels(residual.read(x), {}, None)[0])


def _take(stack: Any, index: Any) -> Any:
    """Blocks of a stack: one, or several still stacked."""
    return jax.tree.map(lambda leaf: leaf[index], stack)


class LMCache(NamedTuple):
    """What a model keeps between calls.

    ``periods[j]`` is the cache of the blocks at position j of the pattern, stacked over periods; ``tail[j]`` that of
    one block of the remainder.
    """

    periods: tuple[Cache, ...]
    tail: tuple[Cache, ...]


class LM(nnx.Module):
    """A language model: embedding, blocks, norm, head.

    The trunk is one ``lax.scan`` over periods of the pattern, so that neither tracing nor compiling grows with the
    depth (up to ``UNROLLED`` blocks it is a loop in Python). ``periods[j]`` is the block at position j of the pattern,
    its parameters stacked over periods on a leading axis; ``tail`` holds the remaining blocks when the depth is not a
    multiple of the pattern. ``shared`` holds, for each different mixer, what its layers have in common, or None.
    ``block(i)`` gives one layer alone, for tools that must reach it.

    Every parameter's key is folded from its layer and its path, so that adding one changes no other's draw.

    Args:
      config: what to build.
      dtype: what matrix products compute in; parameters, residual stream and logits are float32.
      rngs: its ``params`` stream gives the root key.
    """

    def __init__(self, config: LMConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.config, self.dtype = config, dtype
        keys = Keys(rngs)
        width, shape = len(config.pattern), (config.vocab, config.dim)
        projected = to_ternary if config.projection == "ternary" else lambda module: module
        self.embedding = nnx.Param(config.embed_std * jax.random.normal(keys("embedding"), shape, jnp.float32))

        # Blocks of one mixer are drawn by one loop, since drawing is most of what there is to compile.
        def build(layer: Array, mixer: MixerConfig) -> Block:
            block_rngs = nnx.Rngs(params=jax.random.fold_in(keys("blocks"), layer))
            return projected(Block(config, mixer, layer=layer, dtype=dtype, rngs=block_rngs))

        layers = {mixer: [i for i, other in enumerate(config.mixers) if other == mixer] for mixer in config.pattern}
        stacks = {mixer: jax.lax.map(partial(build, mixer=mixer), jnp.array(of)) for mixer, of in layers.items()}

        def drawn(wanted: range) -> Block:
            mixer = config.mixers[wanted[0]]
            return _take(stacks[mixer], np.array([layers[mixer].index(layer) for layer in wanted]))

        scanned = self.count * width
        self.periods = nnx.List([drawn(range(j, scanned, width)) for j in range(width) if scanned])
        self.tail = nnx.List([_take(drawn(range(i, i + 1)), 0) for i in range(scanned, config.depth)])

        def shared(mixer: MixerConfig, name: str) -> nnx.Module | None:
            if not layers[mixer] or not mixer.shared_count(config.dim, config.depth):
                return None
            return projected(mixer.build(config.dim, depth=config.depth, dtype=dtype, rngs=keys.rngs(name)).shared)

        self.shared = nnx.List([shared(mixer, f"shared.{i}") for i, mixer in enumerate(layers)])
        width = config.head_width
        self.norm = _norm(config, width, dtype, rngs)
        init = jax.nn.initializers.normal(config.embed_std)
        head = None if config.tied else dense(keys, "head", width, config.vocab, dtype=dtype, init=init)
        self.head = projected(head)

    def __call__(
        self, tokens: Int[Array, "B T"], segment_ids: Int[Array, "B T"] | None = None
    ) -> Float[Array, "B T vocab"]:
        """The logits of each next token.

        Args:
          tokens: ``[B, T]``.
          segment_ids: packed documents, ``[B, T]``: nothing passes where the id changes; a negative id is padding,
            whose logits mean nothing.

        Returns:
          Logits ``[B, T, vocab]``, float32.
        """
        return self.logits(self.hidden(tokens, segment_ids))

    def hidden(
        self, tokens: Int[Array, "B T"], segment_ids: Int[Array, "B T"] | None = None, *, stored: bool = False
    ) -> Float[Array, "B T D"]:
        """What the head reads of whole sequences: a loss may gather the positions it weighs before it asks for logits.

        Its width is ``config.head_width``. A reversible trunk rebuilds its activations in the backward pass, unless
        they are to be ``stored``.
        """
        residual = RESIDUALS[self.config.residual]
        if isinstance(residual, Coupled):
            x, side = self._enter(tokens)
            branches = (Block.mix_tokens,) if self.config.mlp is None else (Block.mix_tokens, Block.mix_channels)
            tail = jax.tree.map(lambda leaf: leaf[None], tuple(self.tail))
            for count, blocks in ((self.count, self.periods), (1, tail)):
                if not blocks:
                    continue
                stack = tuple(self._complete(block, position, count) for position, block in enumerate(blocks))
                x, side = rebuilt(residual, branches, stack, x, side, segment_ids, stored=stored)
            return self._leave(x)

        def alone(block: Block, x: Array, _: None, side: Side) -> tuple[Array, None, Side]:
            x, _, side = block.prefill(x, block.init_cache(x.shape[0], 0), segment_ids, side)
            return x, None, side

        return self._trunk(tokens, alone, None)[0]

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... vocab"]:
        """The head: float32 logits of ``hidden``."""
        if isinstance(self.head, TernaryProjection):
            logits = self.head.float32(hidden)
        else:
            kernel = (self.embedding[...].T if self.head is None else self.head.kernel[...]).astype(self.dtype)
            logits = jnp.matmul(hidden.astype(self.dtype), kernel, preferred_element_type=jnp.float32)
        cap = self.config.soft_cap
        return logits if cap is None else cap * jnp.tanh(logits / cap)

    def init_cache(self, batch: int, max_len: int) -> LMCache:
        """The cache before the first token, for sequences of up to ``max_len`` tokens."""

        def empty(position: int, block: Block) -> Cache:
            return self._complete(block, position).init_cache(batch, max_len)

        stack = lambda i, block: jax.vmap(partial(empty, i), axis_size=self.count)(block)  # noqa: E731
        periods = tuple(stack(i, block) for i, block in enumerate(self.periods))
        return LMCache(periods, tuple(empty(i, block) for i, block in enumerate(self.tail)))

    def prefill(
        self, tokens: Int[Array, "B T"], cache: LMCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T vocab"], LMCache]:
        """Reads the T next tokens, given the cache of those before; the first segment continues the cache.

        Returns:
          Logits ``[B, T, vocab]``, and the cache after the last token.
        """
        hidden, cache = self.prefill_hidden(tokens, cache, segment_ids)
        return self.logits(hidden), cache

    def prefill_hidden(
        self, tokens: Int[Array, "B T"], cache: LMCache, segment_ids: Int[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], LMCache]:
        """``prefill`` before the head: generation asks for the logits of the last token alone."""
        return self._trunk(tokens, lambda block, x, c, side: block.prefill(x, c, segment_ids, side), cache)

    def step(self, token: Int[Array, " B"], cache: LMCache) -> tuple[Float[Array, "B vocab"], LMCache]:
        """Reads one token: logits ``[B, vocab]`` and the next cache."""
        hidden, cache = self._trunk(token, Block.step, cache)
        return self.logits(hidden), cache

    @property
    def count(self) -> int:
        """The number of periods that the trunk scans over."""
        return self.config.depth // len(self.config.pattern)

    def block(self, layer: int) -> Block:
        """Block ``layer`` alone, with its own parameters: the trunk is these, one after another."""
        if not 0 <= layer < self.config.depth:
            raise ValueError(f"LM: there is no block {layer}; the depth is {self.config.depth}")
        period, position = divmod(layer, len(self.config.pattern))
        block = self.tail[position] if period == self.count else _take(self.periods[position], period)
        return self._complete(block, position)

    def _complete(self, block: Block, position: int, count: int | None = None) -> Block:
        """A block at a position of the pattern, or ``count`` stacked, with what its mixer shares with others."""
        pattern = self.config.pattern
        shared = self.shared[list(dict.fromkeys(pattern)).index(pattern[position])]
        if shared is not None:
            if count is not None:
                shared = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), shared)
            block = jax.tree.map(lambda leaf: leaf, block)
            block.mixer.shared = shared
        return block

    def _trunk(
        self, tokens: Int[Array, "B ..."], apply: Callable, cache: LMCache | None
    ) -> tuple[Float[Array, "B ... D"], LMCache]:
        """Embeds, runs every block by ``apply(block, x, cache, side) -> (x, cache, side)``, and normalises."""
        old = cache or LMCache((None,) * len(self.config.pattern), (None,) * len(self.tail))
        x, side = self._enter(tokens)

        def run(carry, inputs):
            (x, side), caches = carry, []
            for position, (block, cache) in enumerate(zip(*inputs, strict=True)):
                x, cache, side = apply(self._complete(block, position), x, cache, side)
                caches.append(cache)
            return (x, side), tuple(caches)

        if self.config.residual == "checkpoint":
            run = jax.checkpoint(run)
        periods = ()
        if self.periods and self.config.depth <= UNROLLED:
            stacks = []
            for period in range(self.count):
                (x, side), caches = run((x, side), _take((tuple(self.periods), old.periods), period))
                stacks.append(caches)
            periods = jax.tree.map(lambda *leaves: jnp.stack(leaves), *stacks)
        elif self.periods:
            (x, side), periods = jax.lax.scan(run, (x, side), (tuple(self.periods), old.periods))
        (x, _), tail = run((x, side), (tuple(self.tail), old.tail))
        return self._leave(x), LMCache(periods, tail)

    def _enter(self, tokens: Int[Array, "B ..."]) -> tuple[Streams, Side]:
        """The streams before the first block, and a side of zeros but for the embedding."""
        x = self.embedding[...][tokens]
        if self.config.scale_embedding:
            x = x * jnp.float32(jnp.bfloat16(self.config.dim**0.5))  # rounded, or Gemma's checkpoints would differ
        shape = (tokens.shape[0], tokens.shape[1] if tokens.ndim > 1 else 1)
        widths = {name: width for mixer in self.config.pattern for name, width in mixer.side(self.config.dim).items()}
        side = {name: jnp.zeros((*shape, width), jnp.float32) for name, width in widths.items()}
        if EMBEDDING in side:
            side[EMBEDDING] = x.reshape(side[EMBEDDING].shape)
        return RESIDUALS[self.config.residual].start(x), side

    def _leave(self, x: Streams) -> Float[Array, "B ... _"]:
        """What the head reads of the last streams."""
        return self.norm(RESIDUALS[self.config.residual].end(x, joined=not self.config.tied))
