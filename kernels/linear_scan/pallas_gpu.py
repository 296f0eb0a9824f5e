"""Linear scan on Hopper GPUs: token by token, a thread a channel. Complex numbers are two real arrays."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .. import gpu
from ..gpu import spans
from ..gpu.channels import WIDTH, bounded, call, here, load, scan, walk, zero
from ..gpu.mosaic import block
from .arguments import OUTPUTS, axes
from .numbers import add, multiply, parts, whole
from .xla import by_segment

__all__ = ["OUTPUTS", "axes", "run", "unsupported"]

LONGEST = 32
"""The most tokens of a chunk of real numbers; of complex ones half as many."""


def unsupported(a, x, **_) -> str | None:
    """What does not run here, in words."""
    if reason := gpu.unsupported():
        return reason
    if not {a.dtype.name, x.dtype.name} <= {"float32", "bfloat16", "complex64"}:
        return f"a and x are {a.dtype} and {x.dtype}; expected float32, bfloat16 or complex64"
    return None


class Plan(NamedTuple):
    """Everything static about a call."""

    n: int
    """The real arrays of a number."""
    C: int
    """Tokens of a chunk."""
    spans: tuple[int, int]
    """Into how many the sequence is cut, forward and backward."""
    reverse: bool

    def at(self, i, count: int):
        """Where the i-th of so many is, in the order of the scan."""
        return count - 1 - i if self.reverse else i

    def split(self, refs) -> list:
        """The refs of each number."""
        return [refs[m : m + self.n] for m in range(0, len(refs), self.n)]


def run(a, x, *, initial_state, segment_ids, reverse):
    """See ``linear_scan``."""
    return by_segment(_padded, a, x, initial_state, segment_ids, reverse)


@partial(jax.jit, static_argnums=3)
def _padded(a, x, h, reverse: bool):
    """Whole chunks, through which the state holds after the last token, and whole blocks of channels."""
    (B, T, D), n = x.shape, 2 if jnp.iscomplexobj(x) else 1
    C = bounded(T, LONGEST // n)
    # The first pass reads two arrays of tokens, where the second has three forward and five backward.
    S = spans.both_ways(B * -(-D // WIDTH), T, 2 / 3, 2 / 5)
    pad = ((0, 0), (0, -T % (C * max(S))), (0, -D % WIDTH))
    a, x = jnp.pad(a, pad, constant_values=1), jnp.pad(x, pad)
    y, h = _scan(Plan(n, C, S, reverse), a, x, jnp.pad(h, (pad[0], pad[2])))
    return y[:, :T, :D], h[:, :D]


def _forward_kernel(plan: Plan, *refs) -> None:
    a, x, first, y, last = plan.split(refs)
    (b, d, mine), chunks = here(), x[0].shape[1] // plan.C

    def step(i, *refs):
        (a, x), h = plan.split(refs[:-1]), refs[-1]

        def token(t, h):
            t = plan.at(t, plan.C)
            decay, given = (tuple(load(ref.at[t]) for ref in z) for z in (a, x))
            h = add(given, multiply(decay, h))
            for ref, part in zip(y, h, strict=True):
                ref[b, plan.at(i, chunks) * plan.C + t, mine] = part.astype(ref.dtype)
            return h

        return walk(token, plan.C, h, written_out=8)

    tokens = block((plan.C, WIDTH), lambda i: (plan.at(i, chunks), d), factor=False)
    h = tuple(load(ref.at[b, mine]) for ref in first)
    h = scan(step, chunks, [tokens] * 2 * plan.n, [ref.at[b] for ref in (*a, *x)], h)
    for ref, part in zip(last, h, strict=True):
        ref[b, mine] = part


def _backward_kernel(plan: Plan, *refs) -> None:
    """The last chunk first: ``r_t = dy_t + a_{t+1} r_{t+1}``, ``dx_t = r_t``, ``da_t = r_t h_{t-1}``."""
    a, all_y, first, dy, dlast, da, dx, dfirst = plan.split(refs)
    b, d, mine = here()
    T = dy[0].shape[1]
    chunks = T // plan.C
    chunk = lambda done: plan.at(chunks - 1 - done, chunks)  # noqa: E731

    def step(done, *refs):
        (a, y, dy), s = plan.split(refs[:-1]), refs[-1]
        start = chunk(done) * plan.C
        entering = jnp.clip(start + (plan.C if plan.reverse else -1), 0, T - 1)
        is_first = done == chunks - 1
        before = tuple(
            jnp.where(lax.broadcast(is_first, (WIDTH,)), load(h.at[b, mine]), load(ref.at[b, entering, mine]))
            for h, ref in zip(first, all_y, strict=True)
        )

        def back(t, s, before):
            t = plan.at(t, plan.C)
            decay, given = (tuple(load(ref.at[t]) for ref in z) for z in (a, dy))
            r = add(given, s)
            for out, found in ((dx, r), (da, multiply(r, before))):
                for ref, part in zip(out, found, strict=True):
                    ref[b, start + t, mine] = part.astype(ref.dtype)
            return multiply(decay, r)

        def token(t, s):
            return back(t + 1, s, tuple(load(ref.at[plan.at(t, plan.C)]) for ref in y))

        return back(0, walk(token, plan.C - 1, s, written_out=4, reverse=True), before)

    tokens = block((plan.C, WIDTH), lambda done: (chunk(done), d), factor=False)
    s = tuple(load(ref.at[b, mine]) for ref in dlast)
    s = scan(step, chunks, [tokens] * 3 * plan.n, [ref.at[b] for ref in (*a, *all_y, *dy)], s)
    for ref, part in zip(dfirst, s, strict=True):
        ref[b, mine] = part


def _span_kernel(plan: Plan, rows: spans.Rows, adjoint: bool, *refs) -> None:
    """What a span adds to a state, and the product of its decays: ``h = a h + x`` or ``h = a (h + x)``."""
    a, x, last, product = plan.split(refs)
    (b, d, mine), chunks = here(), x[0].shape[1] // plan.C

    def step(i, *refs):
        (a, x), carry = plan.split(refs[:-1]), refs[-1]

        def token(t, carry):
            t, (h, product) = plan.at(t, plan.C), carry
            decay, given = (tuple(load(ref.at[t]) for ref in z) for z in (a, x))
            h = multiply(decay, add(h, given)) if adjoint else add(given, multiply(decay, h))
            return h, multiply(decay, product)

        return walk(token, plan.C, carry, written_out=8)

    tokens = block((plan.C, WIDTH), lambda i: (plan.at(i, chunks), d), factor=False)
    one = zero() + 1.0, zero()
    found = scan(step, chunks, [tokens] * 2 * plan.n, [ref.at[rows(b)] for ref in (*a, *x)],
                 ((zero(),) * plan.n, one[: plan.n]))  # fmt: skip
    for refs, z in zip((last, product), found, strict=True):
        for ref, part in zip(refs, z, strict=True):
            ref[b, mine] = part


def _call(plan: Plan, kernel, name: str, given: list, outputs: list) -> list[jax.Array]:
    """A kernel on the parts of numbers, to the numbers that are like those of ``outputs``."""
    given, outputs = ([part for z in arrays for part in parts(z)] for arrays in (given, outputs))
    B, D = outputs[-1].shape
    out = call(partial(kernel, plan), name, B, D, outputs=[(z.shape, z.dtype) for z in outputs])(*given)
    return [whole(number) for number in plan.split(out)]


def _entering(plan: Plan, S: int, a, x, h, *, adjoint: bool) -> jax.Array:
    """What enters each of S spans, if h enters the first in the order of the scan."""
    if S == 1:
        return h
    rows, found = spans.Rows(S, plan.reverse), jnp.zeros((h.shape[0] * (S - 1), h.shape[1]), h.dtype)
    kernel = lambda plan, *refs: _span_kernel(plan, rows, adjoint, *refs)  # noqa: E731
    added, decays = _call(plan, kernel, "linear_scan_spans", [a, x], [found, found])
    return spans.chained(lambda s, h: spans.of_span(S - 1, s, decays) * h, h, added, back=plan.reverse)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(plan: Plan, a, x, h):
    S = plan.spans[0]
    a, x = (spans.cut(S, z) for z in (a, x))
    h = _entering(plan, S, a, x, h, adjoint=False)
    y, last = _call(plan, _forward_kernel, "linear_scan_forward", [a, x, h], [x, h])
    return spans.joined(S, y), spans.of_span(S, 0 if plan.reverse else -1, last)


def _forward(plan: Plan, a, x, h):
    """Keeps the decays and the states, and nothing else that grows with T."""
    y, last = _scan(plan, a, x, h)
    return (y, last), (a, y, h)


def _backward(plan: Plan, kept, cotangents):
    (a, y, h), (dy, dlast) = kept, cotangents
    S, first = plan.spans[1], -1 if plan.reverse else 0
    back = plan._replace(reverse=not plan.reverse)
    # A span is entered by the state before it, in the order of the scan.
    ends = spans.cut(S, y)[:, -1 - first].reshape(h.shape[0], S, -1).astype(h.dtype)
    first_h = jnp.roll(ends, -1 if plan.reverse else 1, 1).at[:, first].set(h).reshape(-1, h.shape[1])
    a, y, dy = (spans.cut(S, z) for z in (a, y, dy))
    dlast = _entering(back, S, a, dy, dlast, adjoint=True)
    da, dx, dfirst = _call(plan, _backward_kernel, "linear_scan_backward", [a, y, first_h, dy, dlast], [a, y, dlast])
    return spans.joined(S, da), spans.joined(S, dx), spans.of_span(S, first, dfirst)


_scan.defvjp(_forward, _backward)
