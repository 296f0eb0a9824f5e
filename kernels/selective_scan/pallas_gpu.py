"""Selective scan on Hopper GPUs: token by token, a thread a channel, whose N states stay in its registers.

B and C of a token are read from shared memory, the same for all threads. The states of a chunk exist in shared memory
only, in the backward pass, which makes them again from the state that entered the chunk. What is summed over channels,
the gradients of B and C, takes the place of those states, and is summed 64 rows at a time.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from .. import gpu
from ..gpu import mosaic, spans
from ..gpu.channels import WIDTH, bounded, call, here, load, scan, walk, zero
from ..gpu.mosaic import LOG2E, TILE, block
from ..segments import segments
from .arguments import OUTPUTS, axes

__all__ = ["OUTPUTS", "axes", "run", "unsupported"]

STATES = 32
"""The most states: in the backward pass a thread keeps three numbers for each in registers."""
LONGEST = 16
"""The most tokens of a chunk, whose states are in shared memory together in the backward pass."""
STRIDE = WIDTH + 8
"""Of rows that are read both along and across, so that no two of the threads that read together share a bank."""


def unsupported(x, dt, A, B, C, **_) -> str | None:
    """What does not run here, in words."""
    if reason := gpu.unsupported():
        return reason
    if not {z.dtype.name for z in (x, dt, A, B, C)} <= {"float32", "bfloat16"}:
        return "x, dt, A, B and C must be float32 or bfloat16"
    return f"N may be at most {STATES}, not {A.shape[1]}" if A.shape[1] > STATES else None


class Plan(NamedTuple):
    """Everything static about a call."""

    C: int
    """Tokens of a chunk: their states take at most 128 KiB."""
    N: int
    """A power of two of at least 4, so that whole tokens fill 64 rows."""
    packed: bool
    """Whether column 2 N at the side, after B and C, says where the state goes on."""
    spans: tuple[int, int]
    """Into how many the sequence is cut, forward and backward."""


@jax.jit
def run(x, dt, A, B, C, *, initial_state, segment_ids):
    """See ``selective_scan``."""
    (rows, T, D), N = x.shape, A.shape[1]
    states = max(4, 1 << (N - 1).bit_length())
    tokens = max(TILE // states, bounded(T, min(LONGEST, 256 // states)))
    # The first pass makes the same decays once; backward the second makes them twice, and much beside them.
    S = spans.both_ways(rows * -(-D // WIDTH), T, 0.9, 0.25)
    plan = Plan(tokens, states, segment_ids is not None, S)
    late, wide, more = (0, -T % (plan.C * max(S))), (0, -D % WIDTH), (0, plan.N - N)
    valid = None
    side = [jnp.pad(z.astype(jnp.float32), ((0, 0), late, more)) for z in (B, C)]
    if segment_ids is not None:
        seg = segments(segment_ids)
        valid = seg.valid[..., None]
        x, dt = (jnp.where(valid, z, 0) for z in (x, dt))  # the state holds
        on = jnp.pad(~seg.first[..., None], ((0, 0), late, (0, 3)), constant_values=True)  # a row is 16 bytes and more
        side.append(on.astype(jnp.float32))
    x, dt = (jnp.pad(z, ((0, 0), late, wide)) for z in (x, dt))
    A = jnp.pad(A.astype(jnp.float32).T, (more, wide))
    state = jnp.pad(initial_state.swapaxes(1, 2), ((0, 0), more, wide))
    y, state = _scan(plan, x, dt, A, jnp.concatenate(side, 2), state)
    y, state = y[:, :T, :D], state[:, :N, :D].swapaxes(1, 2)
    return y if valid is None else jnp.where(valid, y, 0), state


def _decays(plan: Plan, side, t, rates, dt) -> list[jax.Array]:
    """From the token before, of each state."""
    decays = [jnp.exp2(rate * dt) for rate in rates]
    return [side[t, 2 * plan.N] * decay for decay in decays] if plan.packed else decays


def _blocks(plan: Plan, d, side, chunk) -> tuple:
    """What is fetched for the n-th step: tokens of the channels, and what is at their side."""
    tokens = block((plan.C, WIDTH), lambda n: (chunk(n), d), factor=False)
    return tokens, block((plan.C, side.shape[2]), lambda n: (chunk(n), 0), factor=False)


def _forward_kernel(plan: Plan, x, dt, A, side, first, *refs) -> None:
    y, last, *kept = refs
    (b, d, mine), (C, N, *_) = here(), plan
    tokens, beside = _blocks(plan, d, side, lambda n: n)
    rates = [load(A.at[n, mine]) * LOG2E for n in range(N)]

    def step(chunk, x, dt, side, h):
        for ref in kept:
            for n in range(N):
                ref[b, chunk, n, mine] = h[n]

        def token(t, h):
            dt_t = load(dt.at[t])
            u = dt_t * load(x.at[t])
            decays = _decays(plan, side, t, rates, dt_t)
            h = tuple(decays[n] * h[n] + side[t, n] * u for n in range(N))
            out = side[t, N] * h[0]
            for n in range(1, N):
                out += side[t, N + n] * h[n]
            y[b, chunk * C + t, mine] = out.astype(y.dtype)
            return h

        return walk(token, C, h, written_out=2)

    h = tuple(load(first.at[b, n, mine]) for n in range(N))
    h = scan(step, x.shape[1] // C, [tokens, tokens, beside], [x.at[b], dt.at[b], side.at[b]], h)
    for n in range(N):
        last[b, n, mine] = h[n]


def _backward_kernel(plan: Plan, x, dt, A, side, kept, dy, dlast, *refs) -> None:
    """The last chunk first."""
    dx, ddt, dA, dside, dfirst, states, products = refs
    (b, d, mine), (C, N, *_) = here(), plan
    chunks = x.shape[1] // C
    tokens, beside = _blocks(plan, d, side, lambda n: chunks - 1 - n)
    rates = [load(A.at[n, mine]) * LOG2E for n in range(N)]
    per = TILE // N

    def step(done, x, dt, dy, side, carry):
        chunk = chunks - 1 - done

        def again(t, h):
            dt_t = load(dt.at[t])
            u = dt_t * load(x.at[t])
            for n in range(N):
                states[t * N + n, :WIDTH] = h[n]
            decays = _decays(plan, side, t, rates, dt_t)
            return tuple(decays[n] * h[n] + side[t, n] * u for n in range(N))

        walk(again, C, tuple(load(kept.at[b, chunk, n, mine]) for n in range(N)), written_out=2)

        def group(m, carry):
            """64 rows of states: a few tokens."""

            def back(t, carry):
                dh, sums = carry
                token = m * per + t
                dt_t, x_t, dy_t = load(dt.at[token]), load(x.at[token]), load(dy.at[token])
                u, du, dexponents = dt_t * x_t, 0.0, 0.0
                decays, found = _decays(plan, side, token, rates, dt_t), []
                for n in range(N):
                    here, there = pl.ds(0, WIDTH), token * N + n
                    before = load(states.at[there, here])
                    after = decays[n] * before + side[token, n] * u
                    dh_n = dh[n] + side[token, N + n] * dy_t
                    states[there, here] = dy_t * after
                    products[t * N + n, here] = dh_n * u
                    du += side[token, n] * dh_n
                    dh_n = dh_n * decays[n]
                    dexponent = dh_n * before
                    dexponents += dexponent * rates[n]
                    found.append((dh_n, sums[n] + dexponent * dt_t))
                dx[b, chunk * C + token, mine] = (du * dt_t).astype(dx.dtype)
                ddt[b, chunk * C + token, mine] = (du * x_t + dexponents * (1 / LOG2E)).astype(ddt.dtype)
                return tuple(zip(*found, strict=True))

            carry = walk(back, per, carry, reverse=True)
            plgpu.commit_smem()
            rows = pl.ds(m * TILE, TILE)
            dside[d, b, chunk, 0, rows] = _total(products)
            dside[d, b, chunk, 1, rows] = _total(states.at[rows])
            plgpu.commit_smem()
            return carry

        return walk(group, C // per, carry, reverse=True)

    carry = tuple(load(dlast.at[b, n, mine]) for n in range(N)), (zero(),) * N
    blocks, refs = [tokens, tokens, tokens, beside], [x.at[b], dt.at[b], dy.at[b], side.at[b]]
    dh, sums = scan(step, chunks, blocks, refs, carry)
    for n in range(N):
        dfirst[b, n, mine] = dh[n]
        dA[b, n, mine] = sums[n]


def _total(rows) -> jax.Array:
    """The sum of each of 64 rows."""
    left, right = (mosaic.load(rows.at[:, mosaic.part(n)], optimized=False) for n in range(2))
    return jnp.sum(left + right, 1)


def _span_kernel(plan: Plan, rows: spans.Rows, x, dt, A, side, last) -> None:
    """What a span adds to the state or, if the rows are of the pass back, where x is the cotangent of y, to its own."""
    (b, d, mine), (C, N, *_) = here(), plan
    chunks, back, row = x.shape[1] // C, rows.skips_first, rows(b)
    tokens, beside = _blocks(plan, d, side, lambda n: chunks - 1 - n if back else n)
    rates = [load(A.at[n, mine]) * LOG2E for n in range(N)]

    def step(_, x, dt, side, h):
        def token(t, h):
            dt_t, x_t = load(dt.at[t]), load(x.at[t])
            decays = _decays(plan, side, t, rates, dt_t)
            if back:
                return tuple(decays[n] * (h[n] + side[t, N + n] * x_t) for n in range(N))
            u = dt_t * x_t
            return tuple(decays[n] * h[n] + side[t, n] * u for n in range(N))

        return walk(token, C, h, written_out=2, reverse=back)

    h = scan(step, chunks, [tokens, tokens, beside], [x.at[row], dt.at[row], side.at[row]], (zero(),) * N)
    for n in range(N):
        last[b, n, mine] = h[n]


def _entering(plan: Plan, S: int, x, dt, A, side, first, *, back: bool) -> jax.Array:
    """What enters each of S spans, or the cotangent of what leaves it: then x is the cotangent of y."""
    if S == 1:
        return first
    rows, (B, _, D) = spans.Rows(S, back), first.shape
    (added,) = call(
        partial(_span_kernel, plan, rows), "selective_scan_spans", B * (S - 1), D,
        outputs=[((B * (S - 1), plan.N, D), jnp.float32)],
    )(x, dt, A, side)  # fmt: skip
    decays = jnp.exp(A * dt.astype(jnp.float32).sum(1)[:, None])
    if plan.packed:
        decays *= side[..., 2 * plan.N].min(1)[:, None, None]
    return spans.chained(lambda s, h: spans.of_span(S, s + back, decays) * h, first, added, back=back)


def _cut(S: int, A, *tokens) -> list[jax.Array]:
    """Arrays of tokens cut into spans, and A, which has none, after the first two."""
    x, dt, *rest = (spans.cut(S, z) for z in tokens)
    return [x, dt, A, *rest]


def _forward_pass(plan: Plan, keep: bool, x, dt, A, side, state) -> list[jax.Array]:
    """y, the last state and, if they are to be kept, the states that enter the chunks."""
    S, f32 = plan.spans[0], jnp.float32
    x, dt, A, side = _cut(S, A, x, dt, side)
    (B, L, D), state = x.shape, _entering(plan, S, x, dt, A, side, state, back=False)
    outputs = [(x.shape, x.dtype), (state.shape, f32), *[((B, L // plan.C, plan.N, D), f32)] * keep]
    kernel = partial(_forward_kernel, plan)
    y, last, *kept = call(kernel, "selective_scan_forward", B, D, outputs=outputs)(x, dt, A, side, state)
    return [spans.joined(S, y), spans.of_span(S, -1, last), *(spans.joined(S, z) for z in kept)]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(plan: Plan, x, dt, A, side, state):
    """On rates ``[N, D]`` and states ``[B, N, D]``."""
    return tuple(_forward_pass(plan, False, x, dt, A, side, state))


def _forward(plan: Plan, x, dt, A, side, state):
    y, last, kept = _forward_pass(plan, True, x, dt, A, side, state)
    return (y, last), (x, dt, A, side, kept)


def _backward(plan: Plan, residuals, cotangents):
    (x, dt, A, side, kept), (dy, dlast) = residuals, cotangents
    S, (C, N, *_), f32 = plan.spans[1], plan, jnp.float32
    x, dt, A, side, kept, dy = _cut(S, A, x, dt, side, kept, dy)
    (B, L, D), dlast = x.shape, _entering(plan, S, dy, dt, A, side, dlast, back=True)
    summed = (D // WIDTH, B, L // C, 2, C * N)
    outputs = [(x.shape, x.dtype), (dt.shape, dt.dtype), (dlast.shape, f32), (summed, f32), (dlast.shape, f32)]
    scratch = [mosaic.shared(rows, STRIDE, dtype=f32) for rows in (C * N, TILE)]
    dx, ddt, dA, dside, dfirst = call(
        partial(_backward_kernel, plan), "selective_scan_backward", B, D, outputs=outputs, scratch=scratch
    )(x, dt, A, side, kept, dy, dlast)
    dside = jnp.moveaxis(dside.sum(0).reshape(B, L // C, 2, C, N), 2, 3).reshape(B, L, 2 * N)
    dside = jnp.pad(dside, ((0, 0), (0, 0), (0, side.shape[2] - 2 * N)))
    dx, ddt, dside = (spans.joined(S, z) for z in (dx, ddt, dside))
    return dx, ddt, dA.sum(0), dside, spans.of_span(S, 0, dfirst)


_scan.defvjp(_forward, _backward)
