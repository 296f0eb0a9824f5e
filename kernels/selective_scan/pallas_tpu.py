"""Selective scan on TPUs: token by token, a register for each state of 1,024 channels, which stays in registers.

Channels fill a register, so that a step wastes nothing and moves nothing: dt, x and y are brought from registers
of 8 tokens of 128 channels by writes and strided reads, once for all N states. What is read for each state, ``B_t`` and
``C_t``, is spread over the lanes of a chunk beforehand, and over sublanes by the read.

The states of a chunk exist in vector memory only, in the backward pass, which makes them again from the state that
entered the chunk. Sums over channels add registers first, then sublanes by strided reads, and lanes once a chunk.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .. import tpu
from ..segments import segments
from ..tpu.mosaic import LANES, LOG2E, call
from .arguments import OUTPUTS, axes

__all__ = ["OUTPUTS", "axes", "run", "unsupported"]

SUBLANES = 8
WIDTH = SUBLANES * LANES
"""Channels whose states are registers, ..."""
TOGETHER = 2
"""... and the most blocks of so many in a grid step of the forward pass."""
CHUNK = 64
"""Tokens of a grid step, where there are at most ``STATES`` states; else fewer."""
STATES = 16
"""States that are taken through a chunk together: in the backward pass they take three registers each of 64."""
PACKED = 16
"""Tokens of a register of bfloat16: chunks are multiples of it."""


def unsupported(x, dt, A, B, C, **_) -> str | None:
    """What does not run here, in words."""
    if reason := tpu.unsupported():
        return reason
    if not {z.dtype.name for z in (x, dt, A, B, C)} <= {"float32", "bfloat16"}:
        return "x, dt, A, B and C must be float32 or bfloat16"
    return f"N may be at most 64, not {A.shape[1]}" if A.shape[1] > 64 else None


@jax.jit
def run(x, dt, A, B, C, *, initial_state, segment_ids):
    """See ``selective_scan``."""
    (_, T, D), N = x.shape, A.shape[1]
    side, valid = [B, C], None
    if segment_ids is not None:
        seg = segments(segment_ids)
        valid = seg.valid[..., None]
        x, dt = (jnp.where(valid, z, 0) for z in (x, dt))  # the state holds
        side.append(~seg.first[..., None])
    groups = -(-N // STATES)
    chunk = max(PACKED, CHUNK // groups)
    plan = Plan(min(chunk, -(-T // PACKED) * PACKED), N, segment_ids is not None)
    late, wide = (0, -T % plan.C), (0, -D % WIDTH)
    side = jnp.concatenate([z.astype(jnp.float32) for z in side], 2)
    side = jnp.pad(side, ((0, 0), late, (0, 0)), constant_values=1)
    x, dt = (jnp.pad(z, ((0, 0), late, wide)) for z in (x, dt))
    rows = lambda z: z.astype(jnp.float32).reshape(*z.shape[:-1], -1, LANES)  # noqa: E731
    A, state = (rows(jnp.pad(z.swapaxes(-1, -2), (*[(0, 0)] * (z.ndim - 1), wide))) for z in (A, initial_state))
    y, state = _scan(plan, x, dt, A, side, state)
    y, state = y[:, :T, :D], state.reshape(*state.shape[:2], -1)[..., :D].swapaxes(1, 2)
    return y if valid is None else jnp.where(valid, y, 0), state


class Plan(NamedTuple):
    """Everything static about a call."""

    C: int
    N: int
    packed: bool
    """Whether the last column at the side of B and C says where the state goes on."""

    @property
    def columns(self) -> int:
        """B, C, and where the state goes on."""
        return 2 * self.N + self.packed

    def groups(self) -> list[slice]:
        """The states, a few at a time."""
        return [slice(n, min(n + STATES, self.N)) for n in range(0, self.N, STATES)]

    def walk(self, step: Callable, carry, *, tokens: int, reverse: bool = False):
        """``step(t, carry) -> carry`` over the tokens of a chunk, so many in a turn of the loop.

        In a loop, since the compiler makes the decays of all tokens that it sees before their states, and spills them.
        """

        def some(i, carry):
            for n in range(tokens):
                t = i * tokens + n
                carry = step(self.C - 1 - t if reverse else t, carry)
            return carry

        return jax.lax.fori_loop(0, self.C // tokens, some, carry)


def split(ref, x: jax.Array) -> None:
    """Writes ``[C, 1024]`` register by register, so that ``token`` reads one."""
    for n in range(0, x.shape[0], SUBLANES):
        for j in range(SUBLANES):
            at = (n + j) * SUBLANES
            ref[at : at + SUBLANES] = x[n : n + SUBLANES, j * LANES : (j + 1) * LANES].astype(jnp.float32)


def joined(ref, C: int) -> jax.Array:
    """The inverse of ``split``."""
    rows = []
    for n in range(0, C, SUBLANES):
        at = [(n + j) * SUBLANES for j in range(SUBLANES)]
        rows.append(jnp.concatenate([ref[m : m + SUBLANES] for m in at], 1))
    return jnp.concatenate(rows, 0)


def token(t) -> pl.Slice:
    """Where the channels of a token are: one register, by a stride that one read takes."""
    return pl.ds(t // SUBLANES * SUBLANES**2 + t % SUBLANES, SUBLANES, stride=SUBLANES)


def here(t) -> pl.Slice:
    """Where a token's registers are."""
    return pl.ds(t * SUBLANES, SUBLANES)


def row(ref, columns: slice, t, after: int = 0) -> jax.Array:
    """``[columns, 1, 128]`` of what was spread, of one token."""
    return ref[slice(columns.start + after, columns.stop + after), pl.ds(t, 1)]


def spread(plan: Plan, ref, side: jax.Array) -> None:
    """Every column of ``[C, columns]`` over all lanes."""
    for n in range(plan.columns):
        ref[n] = jnp.broadcast_to(side[:, n : n + 1], (plan.C, LANES))


def steps(plan: Plan, states: slice, t, spread_ref, A, dt, u, h) -> tuple[jax.Array, jax.Array]:
    """The decays of a token, and the states after it."""
    decay = jnp.exp2(A * dt)
    if plan.packed:
        decay = decay * row(spread_ref, slice(2 * plan.N, plan.columns), t)
    return decay, decay * h + u * row(spread_ref, states, t)


def forward_kernel(plan: Plan, keep: bool, x, dt, A, side, first, y, last, *refs) -> None:
    """One chunk of some blocks of 1,024 channels, for all of which B and C are spread once."""
    (*kept, us, dts, ys, spread_ref), C = refs, plan.C

    @pl.when(pl.program_id(2) == 0)
    def _():
        last[...] = first[...]

    if keep:
        kept[0][...] = last[...]
    spread(plan, spread_ref, side[...])
    for block in range(x.shape[1] // WIDTH):
        channels, rows = slice(block * WIDTH, (block + 1) * WIDTH), here(block)
        step_sizes = dt[:, channels].astype(jnp.float32)
        split(dts, step_sizes)
        split(us, step_sizes * x[:, channels].astype(jnp.float32))
        for group, states in enumerate(plan.groups()):
            rates = A[states, rows]

            def step(t, h, states=states, rates=rates, group=group):
                at = token(t)
                _, h = steps(plan, states, t, spread_ref, rates, dts[at], us[at], h)
                out = jnp.sum(h * row(spread_ref, states, t, plan.N), 0)
                ys[at] = ys[at] + out if group else out
                return h

            last[states, rows] = plan.walk(step, last[states, rows], tokens=16)
        y[:, channels] = joined(ys, C).astype(y.dtype)


def backward_kernel(plan: Plan, x, dt, A, side, kept, dy, dlast, dx, ddt, dA, dside, dfirst, *refs) -> None:
    """One chunk of 1,024 channels, the last chunk first."""
    (us, dts, dys, dus, ddts, spread_ref, hs, dbs), C, N = refs, plan.C, plan.N

    @pl.when(pl.program_id(2) == 0)
    def _():
        dfirst[...] = dlast[...]
        dA[...] = jnp.zeros_like(dA)

    step_sizes, inputs = dt[...].astype(jnp.float32), x[...].astype(jnp.float32)
    split(dts, step_sizes)
    split(us, step_sizes * inputs)
    split(dys, dy[...].astype(jnp.float32))
    spread(plan, spread_ref, side[...])
    lane = jax.lax.broadcasted_iota(jnp.int32, dside.shape, 1)
    columns = jnp.zeros(dside.shape, jnp.float32)
    for group, states in enumerate(plan.groups()):
        rates, n = A[states], states.stop - states.start

        def again(t, h, states=states, rates=rates, n=n):
            hs[:n, here(t)] = h
            at = token(t)
            return steps(plan, states, t, spread_ref, rates, dts[at], us[at], h)[1]

        def back(t, dh, states=states, rates=rates, n=n, group=group):
            at = token(t)
            dt_t, u, dy_t, before = dts[at], us[at], dys[at], hs[:n, here(t)]
            decay, h = steps(plan, states, t, spread_ref, rates, dt_t, u, before)
            dh = dh + dy_t * row(spread_ref, states, t, N)
            hs[:n, here(t)] = dy_t * h
            dbs[:n, here(t)] = dh * u
            du = jnp.sum(dh * row(spread_ref, states, t), 0)
            dh = dh * decay
            dexponent = dh * before
            dA[states] += dexponent * dt_t
            ddt_t = jnp.sum(dexponent * rates, 0)
            dus[at] = dus[at] + du if group else du
            ddts[at] = ddts[at] + ddt_t if group else ddt_t
            return dh

        plan.walk(again, kept[states], tokens=16)
        dfirst[states] = plan.walk(back, dfirst[states], tokens=4, reverse=True)

        def summed(m, columns, states=states):
            for products, start in ((dbs, states.start), (hs, N + states.start)):
                parts = [products[m, pl.ds(s, C, stride=SUBLANES)] for s in range(SUBLANES)]
                total = jnp.sum(sum(parts[1:], parts[0]), 1, keepdims=True)
                columns = jnp.where(lane == start + m, total, columns)
            return columns

        columns = jax.lax.fori_loop(0, n, summed, columns)
    dside[...] = columns
    du = joined(dus, C)
    dx[...] = (du * step_sizes).astype(dx.dtype)
    ddt[...] = (du * inputs + joined(ddts, C) * (1 / LOG2E)).astype(ddt.dtype)


class _Blocks:
    """The grid, and its blocks of so many channels; ``reverse`` takes the chunks last first."""

    def __init__(self, plan: Plan, shape: tuple[int, ...], width: int, reverse: bool):
        self.B, self.T, self.D = shape
        C, N, count, rows = plan.C, plan.N, self.T // plan.C, width // LANES
        chunk = lambda c: count - 1 - c if reverse else c  # noqa: E731
        self.grid = self.B, self.D // width, count
        self.tokens = pl.BlockSpec((None, C, width), lambda b, d, c: (b, chunk(c), d))
        self.rates = pl.BlockSpec((N, rows, LANES), lambda b, d, c: (0, d, 0))
        self.side = pl.BlockSpec((None, C, plan.columns), lambda b, d, c: (b, chunk(c), 0))
        self.dside = pl.BlockSpec((None, None, C, 2 * N), lambda b, d, c: (d, b, chunk(c), 0))
        self.state = pl.BlockSpec((None, N, rows, LANES), lambda b, d, c: (b, 0, d, 0))
        self.states = pl.BlockSpec((None, None, N, rows, LANES), lambda b, d, c: (b, chunk(c), 0, d, 0))


def _memory(plan: Plan, tokens: int) -> list:
    """Arrays of tokens in registers of channels, and what is spread over lanes."""
    one = pltpu.VMEM((SUBLANES * plan.C, LANES), jnp.float32)
    return [*[one] * tokens, pltpu.VMEM((plan.columns, plan.C, LANES), jnp.float32)]


def _forward_pass(plan: Plan, x, dt, A, side, state, *, keep: bool):
    """y, the last state and, if they are to be kept, the states that enter the chunks."""
    width = max(n * WIDTH for n in range(1, TOGETHER + 1) if x.shape[2] % (n * WIDTH) == 0)
    blocks = _Blocks(plan, x.shape, width, reverse=False)
    out = [(blocks.tokens, x.shape, x.dtype), (blocks.state, state.shape, jnp.float32)]
    if keep:
        out.append((blocks.states, (state.shape[0], blocks.grid[2], *state.shape[1:]), jnp.float32))
    return call(
        partial(forward_kernel, plan, keep),
        grid=blocks.grid,
        in_specs=[blocks.tokens, blocks.tokens, blocks.rates, blocks.side, blocks.state],
        out_specs=[spec for spec, _, _ in out],
        out_shape=[jax.ShapeDtypeStruct(shape, dtype) for _, shape, dtype in out],
        scratch_shapes=_memory(plan, 3),
        name="selective_scan_forward",
    )(x, dt, A * LOG2E, side, state)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(plan: Plan, x, dt, A, side, state):
    """On rates ``[N, D / 128, 128]`` and states ``[B, N, D / 128, 128]``."""
    return tuple(_forward_pass(plan, x, dt, A, side, state, keep=False))


def _forward(plan: Plan, x, dt, A, side, state):
    y, last, kept = _forward_pass(plan, x, dt, A, side, state, keep=True)
    return (y, last), (x, dt, A, side, kept)


def _backward(plan: Plan, residuals, cotangents):
    (x, dt, A, side, kept), (dy, dlast) = residuals, cotangents
    blocks = _Blocks(plan, x.shape, WIDTH, reverse=True)
    per_batch = jax.ShapeDtypeStruct(dlast.shape, jnp.float32)
    products = pltpu.VMEM((min(plan.N, STATES), plan.C * SUBLANES, LANES), jnp.float32)
    dx, ddt, dA, dside, dfirst = call(
        partial(backward_kernel, plan),
        grid=blocks.grid,
        in_specs=[blocks.tokens, blocks.tokens, blocks.rates, blocks.side, blocks.states, blocks.tokens, blocks.state],
        out_specs=[blocks.tokens, blocks.tokens, blocks.state, blocks.dside, blocks.state],
        out_shape=[
            jax.ShapeDtypeStruct(x.shape, x.dtype),
            jax.ShapeDtypeStruct(dt.shape, dt.dtype),
            per_batch,
            jax.ShapeDtypeStruct((blocks.grid[1], *x.shape[:2], 2 * plan.N), jnp.float32),
            per_batch,
        ],
        scratch_shapes=[*_memory(plan, 5), products, products],
        name="selective_scan_backward",
    )(x, dt, A * LOG2E, side, kept, dy, dlast)
    dside = jnp.pad(dside.sum(0), ((0, 0), (0, 0), (0, side.shape[2] - 2 * plan.N)))
    return dx, ddt, dA.sum(0), dside, dfirst


_scan.defvjp(_forward, _backward)
