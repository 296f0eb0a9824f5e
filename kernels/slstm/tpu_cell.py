"""The TPU kernels of sLSTM: what a chunk of tokens does at once, and what goes token by token.

In the backward pass the pre-activations of a chunk are made again from its hidden states, and the matrices' gradient
from those of the gates, each in one product a head; what is left token by token is one product and ten operations. The
state is held as ``q = c / n`` and n: with ``ω = exp(i - m) / n_t`` and ``α = 1 - ω``, ``q_t = α q_{t-1} + ω tanh(z)``,
and the cotangent of ``log n + m`` takes the place of n's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ..tpu.mosaic import dot
from .tpu_rows import STATE, Plan, gather, parts, product, read_marks, scatter, spread, wide

FACTORS = 8
"""Of a token in the backward pass, see ``factors``."""


class Gates(NamedTuple):
    """What the pre-activations make of the state."""

    forget: jax.Array
    write: jax.Array
    z: jax.Array
    o: jax.Array
    m: jax.Array


def gates(pre: Sequence[jax.Array], n: jax.Array, m: jax.Array) -> Gates:
    """Of pre-activations i, f, z and o, and the state before."""
    i, f, z, o = pre
    kept = jnp.minimum(f, 0) - jnp.log1p(jnp.exp(-jnp.abs(f))) + m
    empty = n == 0
    unit = jnp.where(empty, i, jnp.maximum(kept, i))
    forget = jnp.where(empty, 0, jnp.exp(kept - unit))
    return Gates(forget, jnp.exp(i - unit), jnp.tanh(z), jax.nn.sigmoid(o), unit)


def forward_kernel(plan: Plan, keep: bool, x, R, *refs) -> None:
    """One chunk."""
    marks, refs = (refs[0], refs[1:]) if plan.masked else (None, refs)
    first, y, last, *refs = refs
    kept, refs = (refs[0], refs[1:]) if keep else (None, refs)
    xs, ys, *refs = refs
    ks, refs = (refs[0], refs[1:]) if keep else (None, refs)

    @pl.when(pl.program_id(2) == 0)
    def _():
        last[...] = first[...]

    read_marks(plan, marks, refs)
    for n, j, row in plan.each():
        for b in range(plan.B):
            scatter(xs, n, plan.chunk(row + b), x[b, :, plan.lanes(n, j)])
    shape, D = spread(plan), plan.D

    def step(t, states):
        at, new = plan.token(t), []
        mark = wide(plan, refs[0][0, 0, at]) if plan.masked else None
        for group, (q, n, h, m) in enumerate(states):
            if mark is not None:
                n, h = (jnp.where(mark > 0, 0, part) for part in (n, h))
            if keep:
                for k, part in enumerate((q, n, h, m)):
                    scatter(ks, group, at, part, k * plan.tiles)
            u = product(h, [R[s, group] for s in range(plan.terms)], shape)
            of = gates(parts(gather(xs, group, at, 0, STATE * plan.tiles) + u, D), n, m)
            after = of.forget * n + of.write
            before = jnp.where(n == 0, 0, q)
            mixed = before + of.write / after * (of.z - before)
            state = mixed, after, of.o * mixed, of.m
            if mark is not None:
                state = tuple(jnp.where(mark < 0, a, b) for a, b in zip((q, n, h, m), state, strict=True))
            scatter(ys, group, at, state[2])
            new.append(state)
        return tuple(new)

    states = tuple(tuple(last[n, k] for k in range(STATE)) for n in range(plan.groups))
    for n, state in enumerate(jax.lax.fori_loop(0, plan.C, step, states)):
        for k, part in enumerate(state):
            last[n, k] = part
    for n, j, row in plan.each():
        for b in range(plan.B):
            rows = plan.chunk(row + b)
            y[b, :, plan.lanes(n, j, 1)] = gather(ys, n, rows, 0, plan.tiles).astype(y.dtype)
            if kept is not None:
                kept[b, :, plan.lanes(n, j)] = gather(ks, n, rows, 0, STATE * plan.tiles)


def factors(pre: Sequence[jax.Array], state: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """What cotangents are multiplied by, all but dy itself, from the state before a token."""
    q, n, _, m = state
    of = gates(pre, n, m)
    after = 1 / (of.forget * n + of.write)
    q, alpha, omega = jnp.where(n == 0, 0, q), of.forget * n * after, of.write * after
    mixed = q + omega * (of.z - q)
    return (
        of.o,
        alpha * omega * (of.z - q),
        alpha,
        omega,
        jax.nn.sigmoid(-pre[1]),
        omega * (1 - of.z * of.z),
        mixed * of.o * (1 - of.o),
    )


def backward_kernel(plan: Plan, x, kept, R, *refs) -> None:
    """One chunk, the last first; the state's cotangents are those of q, ``log n + m`` and h."""
    marks, refs = (refs[0], refs[1:]) if plan.masked else (None, refs)
    dy, dlast, dx, dR, dfirst, fs, ds, *refs = refs

    @pl.when(pl.program_id(2) == 0)
    def _():
        dfirst[...] = dlast[...]
        dR[...] = jnp.zeros_like(dR)

    read_marks(plan, marks, refs)
    D, tiles = plan.D, plan.tiles
    for n, j, row in plan.each():
        own = slice(j * STATE * D, (j + 1) * STATE * D)
        for b in range(plan.B):
            rows, lanes = plan.chunk(row + b), plan.lanes(n, j)
            state = parts(kept[b, :, lanes], D)
            u = product(state[2], [R[s, n, own] for s in range(plan.terms)], contract=(1, 1))
            found = factors(parts(x[b, :, lanes].astype(jnp.float32) + u, D), state)
            for k, factor in enumerate((*found, dy[b, :, plan.lanes(n, j, 1)])):
                scatter(fs, n, rows, factor, k * tiles)
    shape = spread(plan)

    def step(s, cotangents):
        at, new = plan.token(plan.C - 1 - s), []
        mark = wide(plan, refs[0][0, 0, at]) if plan.masked else None
        for n, (dq, dlog, dh) in enumerate(cotangents):
            o, mix, alpha, omega, fading, write, gate, dy = parts(gather(fs, n, at, 0, FACTORS * tiles), D)
            dh = dh + dy
            dmixed = dq + dh * o
            moved = dmixed * mix
            back = alpha * dlog - moved
            dpre = jnp.concatenate([moved + omega * dlog, back * fading, dmixed * write, dh * gate], 1)
            if mark is not None:
                dpre = jnp.where(jnp.concatenate([mark] * STATE, 1) < 0, 0, dpre)
            scatter(ds, n, at, dpre)
            found = alpha * dmixed, back, product(dpre, [R[s, n] for s in range(plan.terms)], shape)
            if mark is not None:
                found = *found[:2], jnp.where(mark > 0, 0, found[2])
                found = tuple(jnp.where(mark < 0, a, b) for a, b in zip((dq, dlog, dh), found, strict=True))
            new.append(found)
        return tuple(new)

    cotangents = tuple(tuple(dfirst[n, k] for k in range(3)) for n in range(plan.groups))
    for n, found in enumerate(jax.lax.fori_loop(0, plan.C, step, cotangents)):
        for k, part in enumerate(found):
            dfirst[n, k] = part
    low = jnp.bfloat16 if plan.terms == 1 else jnp.float32
    for n, j, row in plan.each():
        rows, lanes = plan.chunk(row, plan.B), plan.lanes(n, j)
        dpre = gather(ds, n, rows, 0, STATE * tiles)
        for b in range(plan.B):
            dx[b, :, lanes] = dpre[plan.chunk(b)].astype(dx.dtype)
        h = jnp.concatenate([parts(kept[b, :, lanes], D)[2] for b in range(plan.B)], 0)
        dR[n, j * STATE * D : (j + 1) * STATE * D] += dot(dpre.astype(low), h.astype(low), (0, 0))
