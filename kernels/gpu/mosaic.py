"""What the GPU kernels are written with. Imported only where one runs.

A block is one warpgroup, which prefetches the next chunk by TMA while it computes. All matrices are cut into tiles of
64 x 64, the least that a Hopper matrix instruction (wgmma) takes. Its factors lie in shared memory: the interpreter
knows none in registers.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

LOG2E = 1.4426950408889634
TILE = 64
"""The side of a tile, and the tokens of a chunk."""
_tiles, _swizzle = plgpu.TilingTransform((8, TILE)), plgpu.SwizzleTransform(128)  # pyright: ignore[reportAbstractUsage]
SWIZZLED = (_tiles, _swizzle)
"""How bfloat16 matrices lie in shared memory, so that wgmma reads them."""
LAYOUT = plgpu.Layout.WGMMA
"""How a tile lies in registers."""


def shared(*shape: int, dtype: Any = jnp.bfloat16) -> Any:
    """A buffer in shared memory; matrices of bfloat16 may be factors."""
    return plgpu.SMEM(shape, dtype, transforms=SWIZZLED if dtype == jnp.bfloat16 else ())


def block(shape: tuple[int | None, ...], index: Callable, *, factor: bool = True) -> Any:
    """What a pipeline fetches for each chunk."""
    return plgpu.BlockSpec(shape, index, transforms=SWIZZLED if factor else ())


def part(n: Any) -> Any:
    """The n-th slice of a tile's width."""
    return pl.ds(n * TILE, TILE)


def product(a: Any, b: Any, *more: tuple[Any, Any]) -> jax.Array:
    """The product of two references ``[64, n]`` and ``[n, 64]``, and those of more pairs, summed in float32."""

    def multiply(total):
        for left, right in ((a, b), *more):
            plgpu.wgmma(total, left, right)
        return total[...]

    return pl.run_scoped(multiply, plgpu.WGMMAAccumulatorRef((TILE, TILE), jnp.float32))


def sums(run: Callable, count: int) -> tuple[jax.Array, ...]:
    """So many tiles of float32, which begin at 0 and to which ``run(refs)`` adds products by ``add``."""

    def within(*refs):
        run(refs)
        return tuple(ref[...] for ref in refs)

    return pl.run_scoped(within, *[plgpu.WGMMAAccumulatorRef((TILE, TILE), jnp.float32)] * count)


def add(*terms: tuple[Any, Any, Any]) -> None:
    """To each reference of ``sums`` the product of two; all run at once. No register holds the product by itself."""
    for total, left, right in terms:
        plgpu.wgmma(total, left, right)
    plgpu.wgmma_wait(0)


def transposed(ref: Any) -> Any:
    """The reference with its two axes exchanged; nothing moves."""
    return ref.transpose((1, 0))


def load(ref: Any, layout: Any = LAYOUT, *, optimized: bool = True) -> jax.Array:
    """A tile or a vector, in float32."""
    return plgpu.load(ref, layout=layout, optimized=optimized).astype(jnp.float32)


def column(ref: Any) -> jax.Array:
    """A vector over the rows of a tile, to be spread by ``by_row``."""
    return load(ref, LAYOUT.reduce(1))


def row(ref: Any) -> jax.Array:
    """A vector over the columns of a tile, to be spread by ``by_column``."""
    return load(ref, LAYOUT.reduce(0))


def spread_integers(ref: Any, axis: int) -> jax.Array:
    """A tile whose columns (axis 0) or rows (axis 1) all are the vector of integers."""
    return lax.broadcast_in_dim(plgpu.load(ref, layout=LAYOUT.reduce(1 - axis)), (TILE, TILE), [axis])


def by_row(x: jax.Array) -> jax.Array:
    """A tile whose columns all are ``x``."""
    return lax.broadcast_in_dim(x, (TILE, TILE), [0])


def by_column(x: jax.Array) -> jax.Array:
    """A tile whose rows all are ``x``."""
    return lax.broadcast_in_dim(x, (TILE, TILE), [1])


def indices() -> tuple[jax.Array, jax.Array]:
    """The row and the column of each entry of a tile."""
    iota = lambda axis: plgpu.broadcasted_iota(jnp.int32, (TILE, TILE), axis, layout=LAYOUT)  # noqa: E731
    return iota(0), iota(1)


def zeros() -> jax.Array:
    """A tile of zeros."""
    return plgpu.layout_cast(jnp.zeros((TILE, TILE), jnp.float32), LAYOUT)


def zero_column(fill: float = 0.0) -> jax.Array:
    """Zeros, or another number, as ``column`` gives them."""
    return plgpu.layout_cast(jnp.full((TILE,), fill, jnp.float32), LAYOUT.reduce(1))


def put(ref: Any, x: jax.Array) -> None:
    """Writes a tile to be the factor of a product."""
    ref[...] = x.astype(ref.dtype)
    plgpu.commit_smem()


def fetch(*copies: tuple[Any, Any]) -> None:
    """Copies from global to shared memory, and waits for them."""

    def wait(barrier):
        for source, target in copies:
            plgpu.copy_gmem_to_smem(source, target, barrier)
        plgpu.barrier_wait(barrier)

    pl.run_scoped(wait, plgpu.Barrier(num_arrivals=len(copies)))


def finished() -> None:
    """Shared memory has been read so far, and may be fetched into again."""
    plgpu.commit_smem()


def send(*copies: tuple[Any, Any]) -> None:
    """Starts copies of shared to global memory; ``sent`` must come before the shared memory is written again."""
    plgpu.commit_smem()
    for source, target in copies:
        plgpu.copy_smem_to_gmem(source, target)


def sent(*, everywhere: bool = False) -> None:
    """Waits until what was sent has been read, or has arrived."""
    plgpu.wait_smem_to_gmem(0, wait_read_only=not everywhere)


def scan(step: Callable, chunks: int | jax.Array, buffers: int, blocks: list, refs: list, state: Any) -> Any:
    """``state = step(n, *chunks of refs, state)`` over the chunks in order, fetched while earlier ones are computed."""
    pipeline = plgpu.emit_pipeline(
        lambda index, *rest: step(index[0], *rest),
        grid=(chunks,),
        in_specs=blocks,
        max_concurrent_steps=buffers,
        init_carry=state,
    )
    return pipeline(*refs)


def scan_listed(
    step: Callable, steps: int | jax.Array, buffers: int, read: Callable, copies: Callable, arrivals: int, state: Any
) -> Any:
    """``state = step(read(n), slot, state)`` in order, where what ``copies(read(n), slot)`` names has arrived.

    That is ``scan`` where what is fetched is looked up. ``read`` is called a step before its numbers are needed, and
    nothing waits for them; it must give some for steps past the last too.
    """

    def run(barriers):
        def start(found, slot):
            for source, target in copies(found, slot):
                plgpu.copy_gmem_to_smem(source, target, barriers.at[slot])

        def one(n, carry):
            (found, *later), state = carry
            slot = lax.rem(n, buffers)
            plgpu.barrier_wait(barriers.at[slot])
            state = step(found, slot, state)
            pl.when(n + buffers < steps)(lambda: start(later[-1], slot))
            return (*later, read(n + buffers + 1)), state

        ahead = tuple(read(jnp.int32(n)) for n in range(buffers + 1))
        for slot in range(buffers):
            pl.when(slot < steps)(functools.partial(start, ahead[slot], slot))
        return lax.fori_loop(jnp.int32(0), steps, one, (ahead, state))[1]

    return pl.run_scoped(run, plgpu.Barrier(num_arrivals=arrivals, num_barriers=buffers))


def call(
    kernel: Callable,
    name: str,
    *,
    grid: dict[str, int],
    outputs: list,
    scratch: list,
    barriers: bool = True,
    threads: dict[str, int] | None = None,
) -> Callable:
    """``plgpu.kernel`` over a grid of named axes, with one warpgroup a block or, by name, as many as ``threads`` says.

    The layouts are those that the kernel names: to infer them took the compiler minutes and more. Without ``barriers``
    threads wait for each other only where the kernel says so.
    """
    lane, ((axis, groups),) = plgpu.LoweringSemantics.Lane, (threads or {None: None}).items()
    return plgpu.kernel(
        kernel,
        out_type=[jax.ShapeDtypeStruct(*out) for out in outputs],
        scratch_types=scratch,
        grid=tuple(grid.values()),
        grid_names=tuple(grid),
        num_threads=groups,
        thread_name=axis,
        kernel_name=name,
        compiler_params=plgpu.CompilerParams(lowering_semantics=lane, unsafe_no_auto_barriers=not barriers),
    )
