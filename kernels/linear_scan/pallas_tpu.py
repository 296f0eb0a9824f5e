"""Linear scan on TPUs: eight tokens at a time, by doubling within a register; the state stays in vector memory.

A register holds 8 tokens of 128 channels. Its scan is three steps of ``x += a * shift(x)``, ``a *= shift(a)``: with the
state added to the first token's x, and then 0 for the first token's a, no step needs a mask. Row by row, a token would
take an eighth of a register. Complex numbers are two real arrays.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .. import tpu
from ..tpu.mosaic import LANES, call
from .arguments import OUTPUTS, axes
from .numbers import Number, add, multiply, parts, whole
from .xla import by_segment

__all__ = ["OUTPUTS", "axes", "run", "unsupported"]

CHUNK = 256
"""The most tokens of a grid step."""
WIDTH = 1024
"""The most channels of a grid step."""
ROWS = 8
"""Tokens of a register."""
PACKED = 16
"""Tokens of a register of bfloat16, and of what is read and written at a time."""


def unsupported(a, x, **_) -> str | None:
    """What does not run here, in words."""
    if reason := tpu.unsupported():
        return reason
    if not {a.dtype.name, x.dtype.name} <= {"float32", "bfloat16", "complex64"}:
        return f"a and x are {a.dtype} and {x.dtype}; expected float32, bfloat16 or complex64"
    return None


def run(a, x, *, initial_state, segment_ids, reverse):
    """See ``linear_scan``."""
    return by_segment(_padded, a, x, initial_state, segment_ids, reverse)


def _padded(a, x, h, reverse: bool):
    """Whole chunks, through which the state holds after the last token, and whole registers."""
    (_, T, D), short_d = x.shape, -x.shape[2] % LANES
    C = min(CHUNK, -(-T // PACKED) * PACKED)
    pad = ((0, 0), (0, -T % C), (0, short_d))
    width = max(n for n in range(LANES, WIDTH + 1, LANES) if (D + short_d) % n == 0)
    a, x = jnp.pad(a, pad, constant_values=1), jnp.pad(x, pad)
    y, h = _scan(Plan(C, width, reverse), a, x, jnp.pad(h, (pad[0], pad[2])))
    return y[:, :T, :D], h[:, :D]


class Plan(NamedTuple):
    """How the arrays are cut, and which way the scan runs."""

    C: int
    width: int
    reverse: bool

    def shift(self, z: jax.Array, tokens: int) -> jax.Array:
        """``z`` with each row moved on by so many tokens in the direction of the scan, around the end."""
        return pltpu.roll(z, (-tokens if self.reverse else tokens) % ROWS, 0)

    def edge(self, *, last: bool) -> int:
        """The row of a register that the scan reaches first, or last."""
        return ROWS - 1 if last != self.reverse else 0

    def at(self, *, last: bool) -> jax.Array:
        """Where that row is."""
        return jax.lax.broadcasted_iota(jnp.int32, (ROWS, self.width), 0) == self.edge(last=last)

    def registers(self) -> list[slice]:
        """What is read and written at a time, in the order of the scan."""
        found = [slice(n, n + PACKED) for n in range(0, self.C, PACKED)]
        return found[::-1] if self.reverse else found

    def halves(self) -> list[slice]:
        """The registers of that, in the order of the scan."""
        found = [slice(0, ROWS), slice(ROWS, PACKED)]
        return found[::-1] if self.reverse else found


def double(plan: Plan, a: Number, x: Number) -> Number:
    """The scan of one register; the first row of ``a`` is 0."""
    for tokens in (1, 2, 4):
        shift = lambda z, n=tokens: tuple(plan.shift(part, n) for part in z)  # noqa: E731
        x = add(x, multiply(a, shift(x)))
        a = multiply(a, shift(a)) if tokens < 4 else a
    return x


def read(refs: Sequence, rows: slice) -> Number:
    """Some rows of a number."""
    return tuple(ref[rows].astype(jnp.float32) for ref in refs)


def write(refs: Sequence, rows: slice, registers: Sequence[Number], reverse: bool) -> None:
    """Writes the registers of some rows, given in the order of the scan."""
    for ref, *found in zip(refs, *registers, strict=True):
        ref[rows] = jnp.concatenate(found[::-1] if reverse else found, 0).astype(ref.dtype)


def where(mask: jax.Array, x: Number, y: Number | None = None) -> Number:
    """``x`` where the mask holds, else ``y``, or 0."""
    return tuple(jnp.where(mask, a, b) for a, b in zip(x, y or (0,) * len(x), strict=True))


def forward_kernel(plan: Plan, n: int, *refs) -> None:
    """One chunk; a number takes ``n`` refs."""
    a, x, start, y, last, state = (refs[m * n : (m + 1) * n] for m in range(6))

    @pl.when(pl.program_id(2) == 0)
    def _():
        for here, given in zip(state, start, strict=True):
            here[...] = jnp.broadcast_to(given[...], here.shape)

    first, h = plan.at(last=False), read(state, slice(None))
    for rows in plan.registers():
        decays, inputs, out = read(a, rows), read(x, rows), []
        for half in plan.halves():
            decay = tuple(z[half] for z in decays)
            entering = where(first, tuple(plan.shift(z, 1) for z in h))
            h = add(tuple(z[half] for z in inputs), multiply(decay, entering))
            h = double(plan, where(~first, decay), h)
            out.append(h)
        write(y, rows, out, plan.reverse)
    edge = plan.edge(last=True)
    for here, there, z in zip(state, last, h, strict=True):
        here[...] = z
        there[...] = z[edge : edge + 1]


def backward_kernel(plan: Plan, n: int, *refs) -> None:
    """One chunk, the last first: ``r_t = dy_t + a_{t+1} r_{t+1}``, ``dx_t = r_t``, ``da_t = r_t h_{t-1}``."""
    a, y, early, start, dy, dlast, da, dx, dstart, state = (refs[m * n : (m + 1) * n] for m in range(10))
    back = plan._replace(reverse=not plan.reverse)
    step, steps = pl.program_id(2), pl.num_programs(2)

    @pl.when(step == 0)
    def _():
        for here, given in zip(state, dlast, strict=True):
            here[...] = jnp.broadcast_to(given[...], here.shape)

    shift = lambda p, z: tuple(p.shift(part, 1) for part in z)  # noqa: E731
    first, last = plan.at(last=False), plan.at(last=True)
    registers, halves = back.registers(), back.halves()
    before = tuple(jnp.where(step == steps - 1, given[...], z[halves[0]])
                   for given, z in zip(start, read(early, slice(None)), strict=True))  # fmt: skip
    h = [tuple(z[half] for z in read(y, rows)) for rows in registers for half in halves]
    delayed = [shift(plan, z) for z in [*h, before]]
    s = read(state, slice(None))  # a_{t+1} r_{t+1} of the token before which the next register ends
    for m, rows in enumerate(registers):
        decays, inputs, found = read(a, rows), read(dy, rows), []
        for k, half in enumerate(halves):
            decay, r = tuple(z[half] for z in decays), tuple(z[half] for z in inputs)
            r = add(r, where(last, shift(back, s)))
            r = double(back, where(~last, shift(back, decay)), r)
            s = multiply(decay, r)
            at = 2 * m + k
            found.append((multiply(r, where(first, delayed[at + 1], delayed[at])), r))
        write(da, rows, [one for one, _ in found], back.reverse)
        write(dx, rows, [one for _, one in found], back.reverse)
    edge = plan.edge(last=False)
    for here, there, z in zip(state, dstart, s, strict=True):
        here[...] = z
        there[...] = z[edge : edge + 1]


class _Blocks:
    """The grid and its blocks; ``reverse`` takes the chunks last first."""

    def __init__(self, plan: Plan, shape: tuple[int, ...], reverse: bool):
        B, T, D = shape
        C, width, N = plan.C, plan.width, T // plan.C
        chunk = lambda c: N - 1 - c if reverse else c  # noqa: E731
        self.grid = B, D // width, N
        self.tokens = pl.BlockSpec((None, C, width), lambda b, d, c: (b, chunk(c), d))
        self.state = pl.BlockSpec((None, 1, width), lambda b, d, c: (b, 0, d))
        per = C // PACKED

        def early(b, d, c):  # the rows before the chunk in the direction of the scan
            n = (chunk(c) + 1) * per if plan.reverse else chunk(c) * per - 1
            return b, jnp.clip(n, 0, N * per - 1), d

        self.early = pl.BlockSpec((None, PACKED, width), early)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(plan: Plan, a, x, h):
    blocks, (A, X, H) = _Blocks(plan, x.shape, plan.reverse), (parts(z) for z in (a, x, h[:, None]))
    n = len(X)
    out = call(
        partial(forward_kernel, plan, n),
        grid=blocks.grid,
        in_specs=[*[blocks.tokens] * 2 * n, *[blocks.state] * n],
        out_specs=[*[blocks.tokens] * n, *[blocks.state] * n],
        out_shape=[jax.ShapeDtypeStruct(z.shape, z.dtype) for z in (*X, *H)],
        scratch_shapes=[pltpu.VMEM((ROWS, plan.width), jnp.float32)] * n,
        name="linear_scan_forward",
    )(*A, *X, *H)
    return whole(out[:n]), whole(out[n:])[:, 0]


def _forward(plan: Plan, a, x, h):
    """Keeps the decays and the states, and nothing else that grows with T."""
    y, last = _scan(plan, a, x, h)
    return (y, last), (a, y, h)


def _backward(plan: Plan, kept, cotangents):
    (a, y, h), (dy, dlast) = kept, cotangents
    blocks = _Blocks(plan, y.shape, not plan.reverse)
    A, Y, H, dY, dL = (parts(z) for z in (a, y, h[:, None], dy, dlast[:, None]))
    n = len(Y)
    specs = [blocks.tokens, blocks.tokens, blocks.early, blocks.state, blocks.tokens, blocks.state]
    out = call(
        partial(backward_kernel, plan, n),
        grid=blocks.grid,
        in_specs=[spec for spec in specs for _ in range(n)],
        out_specs=[*[blocks.tokens] * 2 * n, *[blocks.state] * n],
        out_shape=[jax.ShapeDtypeStruct(z.shape, z.dtype) for z in (*A, *Y, *H)],
        scratch_shapes=[pltpu.VMEM((ROWS, plan.width), jnp.float32)] * n,
        name="linear_scan_backward",
    )(*A, *Y, *Y, *H, *dY, *dL)
    return whole(out[:n]), whole(out[n : 2 * n]), whole(out[2 * n :])[:, 0]


_scan.defvjp(_forward, _backward)
