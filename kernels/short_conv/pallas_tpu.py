"""The short filter on TPUs: a chunk and the tokens before it lie in vector memory, from which each tap reads its rows.

A tap's rows begin anywhere in a register, and are read so. The backward pass makes the outputs before the activation
again, the last chunk first, and reads their gradients as many tokens later. Both see each array once.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .. import tpu
from ..tpu.mosaic import LANES, call
from .arguments import OUTPUTS, axes
from .xla import by_segment

__all__ = ["OUTPUTS", "axes", "run", "unsupported"]

CHUNK = 256
"""The most tokens of a grid step."""
WIDTH = 512
"""The most channels of a grid step."""
ROWS = 8
"""Tokens of a register, and the most before a chunk that a filter reaches."""
PACKED = 16
"""Tokens of a register of bfloat16, and of what is computed at a time."""
TURNS = (4, 3, 2, 1)
"""How often that may be in a turn of a loop."""


def unsupported(x, w, b, **_) -> str | None:
    """What does not run here, in words."""
    if reason := tpu.unsupported():
        return reason
    if not {z.dtype.name for z in (x, w, *([] if b is None else [b]))} <= {"float32", "bfloat16"}:
        return "x, w and b must be float32 or bfloat16"
    return f"W may be at most {ROWS + 1}, not {w.shape[0]}" if w.shape[0] > ROWS + 1 else None


@partial(jax.jit, static_argnames="activation")
def run(x, w, b, *, initial_state, segment_ids, activation):
    """See ``short_conv``."""
    return by_segment(partial(_padded, activation), x, w, b, initial_state, segment_ids)


def _padded(activation, x, w, b, tail, same):
    """Whole chunks and registers; of each token how many before it are in its segment, over lanes."""
    (_, T, D), n = x.shape, w.shape[0] - 1
    C = min(CHUNK, -(-T // PACKED) * PACKED)
    late, wide = (0, -T % C), (0, -D % LANES)
    width = max(d for d in range(LANES, WIDTH + 1, LANES) if (D + wide[1]) % d == 0)
    taps = jnp.pad(jnp.concatenate([w, (jnp.zeros(D, w.dtype) if b is None else b)[None]]), ((0, 0), wide))
    reach = None
    if same is not None:
        reach = jnp.pad(same.sum(2) - 1.0, ((0, 0), late), constant_values=n)
        reach = jnp.broadcast_to(reach[..., None], (*reach.shape, LANES)).astype(jnp.float32)
    tail = jnp.pad(tail, ((0, 0), (ROWS - n, 0), wide))
    plan = Plan(C, width, n, activation == "silu", reach is not None)
    return _convolve(plan, jnp.pad(x, ((0, 0), late, wide)), taps, tail, reach)[:, :T, :D]


class Plan(NamedTuple):
    """Everything static about a call."""

    C: int
    width: int
    n: int
    """How many tokens before its own a filter reaches."""
    silu: bool
    masked: bool

    def tiles(self) -> list[tuple[int, slice]]:
        """The channels, as many as a register has lanes at a time."""
        return [(k, slice(k * LANES, (k + 1) * LANES)) for k in range(self.width // LANES)]

    def each(self, step: Callable, carry: Any = None) -> Any:
        """``step(start, carry) -> carry`` over what is computed at a time, several in a turn of the loop."""
        count = self.C // PACKED
        turn = next(n for n in TURNS if count % n == 0)

        def some(i, carry):
            for n in range(turn):
                carry = step(pl.multiple_of((i * turn + n) * PACKED, PACKED), carry)
            return carry

        return jax.lax.fori_loop(0, count // turn, some, carry)

    def within(self, reach, rows: pl.Slice, distance: int, x: jax.Array) -> jax.Array:
        """``x`` where the token so far before is in the segment, else 0."""
        return jnp.where(reach[rows] >= distance, x, 0) if self.masked and distance else x


def taps_of(plan: Plan, xs, k: int, reach, start) -> list[jax.Array]:
    """What the filter sees from the tokens at ``start`` on, farthest first; ``xs`` holds 8 rows before the chunk's."""
    rows = lambda d: pl.ds(start + (ROWS - d), PACKED)  # noqa: E731
    return [plan.within(reach, pl.ds(start, PACKED), d, xs[k, rows(d)]) for d in range(plan.n, -1, -1)]


def filtered(plan: Plan, w, lanes: slice, seen: list[jax.Array]) -> jax.Array:
    """The outputs before the activation; the bias is below the taps."""
    out = w[plan.n + 1 : plan.n + 2, lanes]
    for j, x in enumerate(seen):
        out = out + w[j : j + 1, lanes] * x
    return out


def forward_kernel(plan: Plan, x, w, tail, *refs) -> None:
    """One chunk."""
    reach, (y, xs) = (refs[0], refs[1:]) if plan.masked else (None, refs)
    first = pl.program_id(2) == 0
    for k, lanes in plan.tiles():
        xs[k, :ROWS] = jnp.where(first, tail[:, lanes], xs[k, plan.C :])
        xs[k, ROWS:] = x[:, lanes].astype(jnp.float32)

    def step(start, carry):
        for k, lanes in plan.tiles():
            z = filtered(plan, w, lanes, taps_of(plan, xs, k, reach, start))
            y[pl.ds(start, PACKED), lanes] = (z * jax.nn.sigmoid(z) if plan.silu else z).astype(y.dtype)
        return carry

    plan.each(step)


def backward_kernel(plan: Plan, x, early, w, tail, *refs) -> None:
    """One chunk, the last first; ``ds`` has 8 rows of zeros before the chunk's, and 8 of the next one's after them."""
    reach, refs = (refs[0], refs[1:]) if plan.masked else (None, refs)
    (dy, dx, dw, dtail, xs, ds), reaches = refs[:6], refs[6] if plan.masked else None
    step, steps, C = pl.program_id(2), pl.num_programs(2), plan.C
    kept = slice(ROWS, 2 * ROWS)

    @pl.when(step == 0)
    def _():
        dw[...] = jnp.zeros_like(dw)
        ds[...] = jnp.zeros_like(ds)
        if reaches is not None:  # of the zeros, anything
            reaches[...] = jnp.zeros_like(reaches)

    if reach is not None and reaches is not None:
        reaches[ROWS + C :] = reaches[kept]
        reaches[ROWS : ROWS + C] = reach[...]
    for k, lanes in plan.tiles():
        ds[k, ROWS + C :] = ds[k, kept]
        xs[k, :ROWS] = jnp.where(step == steps - 1, tail[:, lanes], early[ROWS:, lanes].astype(jnp.float32))
        xs[k, ROWS:] = x[:, lanes].astype(jnp.float32)

    def outputs(start, sums):
        new = []
        for (k, lanes), totals in zip(plan.tiles(), sums, strict=True):
            seen, out = taps_of(plan, xs, k, reach, start), dy[pl.ds(start, PACKED), lanes].astype(jnp.float32)
            if plan.silu:
                z = filtered(plan, w, lanes, seen)
                gate = jax.nn.sigmoid(z)
                out = out * gate * (1 + z * (1 - gate))
            ds[k, pl.ds(start + ROWS, PACKED)] = out
            found = [*(out * z for z in seen), out]
            new.append([total + z[:ROWS] + z[ROWS:] for total, z in zip(totals, found, strict=True)])
        return new

    zero = jnp.zeros((ROWS, LANES), jnp.float32)
    sums = plan.each(outputs, [[zero] * (plan.n + 2)] * len(plan.tiles()))
    for lanes, totals in zip([lanes for _, lanes in plan.tiles()], sums, strict=True):
        for j, total in enumerate(totals):
            dw[j, :, lanes] += total

    def gradient(k: int, lanes: slice, start: Any, rows: int) -> jax.Array:
        """Of the inputs from a row of ``ds`` on."""
        total = jnp.zeros((rows, LANES), jnp.float32)
        for d in range(plan.n + 1):
            later = pl.ds(start + d, rows)
            total = total + w[plan.n - d : plan.n - d + 1, lanes] * plan.within(reaches, later, d, ds[k, later])
        return total

    def inputs(start, carry):
        for k, lanes in plan.tiles():
            dx[pl.ds(start, PACKED), lanes] = gradient(k, lanes, start + ROWS, PACKED).astype(dx.dtype)
        return carry

    plan.each(inputs)

    @pl.when(step == steps - 1)
    def _():
        for k, lanes in plan.tiles():
            dtail[:, lanes] = gradient(k, lanes, 0, ROWS)


class _Blocks:
    """The grid and its blocks; ``reverse`` takes the chunks last first."""

    def __init__(self, plan: Plan, shape: tuple[int, ...], reverse: bool):
        B, T, D = shape
        C, width, N, per = plan.C, plan.width, T // plan.C, plan.C // PACKED
        chunk = lambda c: N - 1 - c if reverse else c  # noqa: E731
        self.grid = B, D // width, N
        self.tokens = pl.BlockSpec((None, C, width), lambda b, d, c: (b, chunk(c), d))
        self.early = pl.BlockSpec((None, PACKED, width), lambda b, d, c: (b, jnp.maximum(chunk(c) * per - 1, 0), d))
        self.taps = pl.BlockSpec((plan.n + 2, width), lambda b, d, c: (0, d))
        self.tail = pl.BlockSpec((None, ROWS, width), lambda b, d, c: (b, 0, d))
        self.reach = [pl.BlockSpec((None, C, LANES), lambda b, d, c: (b, chunk(c), 0))] * plan.masked
        self.sums = pl.BlockSpec((None, plan.n + 2, ROWS, width), lambda b, d, c: (b, 0, 0, d))


def _memory(plan: Plan, extra: int):
    """Tokens, with so many registers beside the chunk's: of 128 channels, so that rows lie behind each other."""
    return pltpu.VMEM((plan.width // LANES, plan.C + extra * ROWS, LANES), jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(plan: Plan, x, taps, tail, reach):
    """On the filter with the bias below it, and the 8 tokens before the first."""
    blocks = _Blocks(plan, x.shape, reverse=False)
    return call(
        partial(forward_kernel, plan),
        grid=blocks.grid,
        in_specs=[blocks.tokens, blocks.taps, blocks.tail, *blocks.reach],
        out_specs=blocks.tokens,
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        scratch_shapes=[_memory(plan, 1)],
        name="short_conv_forward",
    )(x, taps, tail, *([] if reach is None else [reach]))


def _forward(plan: Plan, x, taps, tail, reach):
    """Keeps the arguments alone."""
    return _convolve(plan, x, taps, tail, reach), (x, taps, tail, reach)


def _backward(plan: Plan, kept, dy):
    x, taps, tail, reach = kept
    blocks = _Blocks(plan, x.shape, reverse=True)
    dx, dtaps, dtail = call(
        partial(backward_kernel, plan),
        grid=blocks.grid,
        in_specs=[blocks.tokens, blocks.early, blocks.taps, blocks.tail, *blocks.reach, blocks.tokens],
        out_specs=[blocks.tokens, blocks.sums, blocks.tail],
        out_shape=[
            jax.ShapeDtypeStruct(x.shape, x.dtype),
            jax.ShapeDtypeStruct((x.shape[0], plan.n + 2, ROWS, x.shape[2]), jnp.float32),
            jax.ShapeDtypeStruct(tail.shape, jnp.float32),
        ],
        scratch_shapes=[
            _memory(plan, 1),
            _memory(plan, 2),
            *[pltpu.VMEM((plan.C + 2 * ROWS, LANES), jnp.float32)] * plan.masked,
        ],
        name="short_conv_backward",
    )(x, x, taps, tail, *([] if reach is None else [reach]), dy)
    return dx, dtaps.sum((0, 2)), dtail, None if reach is None else jnp.zeros_like(reach)


_convolve.defvjp(_forward, _backward)
