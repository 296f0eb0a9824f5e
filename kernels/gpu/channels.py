"""What GPU kernels without matrix products are written with: a thread for each of 128 channels, through all of time.

What a thread keeps of its channel stays in registers. What it writes to shared memory it alone reads again, so that no
barrier is needed but where ``plgpu.commit_smem`` stands. Imported only where such a kernel runs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from . import mosaic

WIDTH = 128
"""Channels of a block."""
LAYOUT = plgpu.Layout.WG_STRIDED((WIDTH,), vec_size=1)
"""A number a thread."""


def load(ref: Any) -> jax.Array:
    """A number of each channel, in float32."""
    return mosaic.load(ref, LAYOUT)


def zero() -> jax.Array:
    """A zero for each channel."""
    return plgpu.layout_cast(jnp.zeros(WIDTH, jnp.float32), LAYOUT)


def walk(step: Callable, tokens: int, carry: Any, *, written_out: int = 1, reverse: bool = False) -> Any:
    """``carry = step(t, carry)`` over tokens, of which so many are written out in a turn of the loop."""
    rest = tokens % written_out

    def some(start, count, carry):
        for n in range(count):
            t = start + n
            carry = step(tokens - 1 - t if reverse else t, carry)
        return carry

    turns = lax.fori_loop(0, tokens // written_out, lambda i, c: some(i * written_out, written_out, c), carry)
    return some(tokens - rest, rest, turns)


def bounded(tokens: int, most: int) -> int:
    """The tokens of a chunk, a power of two, where there are so many in all."""
    return min(most, 1 << (tokens - 1).bit_length())


def scan(step: Callable, chunks: int, blocks: list, refs: list, state: Any) -> Any:
    """``gpu.mosaic.scan``, where all threads are done with a chunk before a later one is fetched in its place."""

    def whole(*args):
        state = step(*args)
        plgpu.commit_smem()
        return state

    return mosaic.scan(whole, chunks, 2, blocks, refs, state)


def call(kernel: Callable, name: str, B: int, D: int, *, outputs: list, scratch: Sequence = ()) -> Callable:
    """A kernel over the grid of ``batch`` and of blocks of channels, ``channel``."""
    grid = {"batch": B, "channel": D // WIDTH}
    return mosaic.call(kernel, name, grid=grid, outputs=outputs, scratch=list(scratch), barriers=False)


def here() -> tuple[Any, Any, Any]:
    """Of this block: its place in the batch, its number among the blocks of channels, and those channels."""
    d = lax.axis_index("channel")
    return lax.axis_index("batch"), d, pl.ds(d * WIDTH, WIDTH)
