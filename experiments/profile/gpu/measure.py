"""How a contestant is timed and held to the definition."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..workloads import Size
from .ops import Op, cotangent, fewer, inputs, least
from .record import Row, label

SETS = 3
"""Inputs that take turns, so that none is in a cache from the call before."""


class Effort(NamedTuple):
    """How long to measure."""

    seconds: float
    """Of the calls of a round, which are not waited for one by one."""
    most: int
    """Calls of a round."""
    rounds: int
    probe: int
    """The side of the matrices with which the card itself is measured."""


FULL, QUICK = Effort(0.1, 200, 7, 8192), Effort(0.0, 1, 3, 256)


class Card(NamedTuple):
    """What the device does at most, as measured: bytes a second of a copy, operations a second of a product."""

    bandwidth: float
    rate: float

    def floor(self, moved: int, products: int) -> float:
        """Milliseconds for so many bytes or so many operations, whichever take longer."""
        return 1e3 * max(moved / self.bandwidth, products / self.rate)


class Contestant(NamedTuple):
    """One implementation; its arrays may be another library's."""

    program: Callable[[bool], Callable[[Any, Any], Any]]
    """Whether with a backward pass -> a function of the arguments, by name, and of dy: y, or the gradients."""
    convert: Callable[[Any], Any]
    """A JAX array, or a dict of them, as the library has it."""
    wait: Callable[[Any], Any]
    numpy: Callable[[Any], list[np.ndarray]]
    """Results as arrays, gradients in the order of the arguments' names."""


def of_jax(function: Callable[[dict[str, jax.Array]], jax.Array]) -> Contestant:
    """A function of JAX arrays to y."""

    def program(backward: bool) -> Callable:
        def both(x, dy):
            y, vjp = jax.vjp(function, x)
            return vjp(dy.astype(y.dtype))[0]

        return jax.jit(both if backward else lambda x, dy: function(x))

    arrays = lambda out: [np.asarray(x, np.float64) for x in jax.tree.leaves(out)]  # noqa: E731
    return Contestant(program, lambda x: x, jax.block_until_ready, arrays)


def card(effort: Effort) -> Card:
    """Measures the device: a copy reads and writes, and a product is of bfloat16."""
    n = effort.probe
    arrays = [jnp.full((n, n), i, jnp.bfloat16) for i in range(SETS)]
    seconds = [
        loop(jax.jit(call), [(x,) for x in arrays], jax.block_until_ready, effort)
        for call in (lambda x: x + 1, lambda x: x @ x)
    ]
    return Card(2 * arrays[0].nbytes / seconds[0], 2 * n**3 / seconds[1])


def loop(call: Callable[..., Any], sets: Sequence[tuple], wait: Callable[[Any], Any], effort: Effort) -> float:
    """Median seconds of a call over rounds of many; ``sets`` of arguments take turns.

    On an accelerator the calls of a round queue up and only the last is waited for, so that no launch is waited for.
    """
    for one in (*sets, sets[0]):  # the last, compiled and with its memory there, says how many make a round
        began = time.perf_counter()
        wait(call(*one))
        once = time.perf_counter() - began
    calls = max(1, min(effort.most, round(effort.seconds / once)))
    seconds = []
    for _ in range(effort.rounds):
        began = time.perf_counter()
        for n in range(calls):
            out = call(*sets[n % len(sets)])
        wait(out)
        seconds.append((time.perf_counter() - began) / calls)
    return statistics.median(seconds)


class Task:
    """An op at a size, with its inputs and what the definition makes of some; contestants come one by one."""

    def __init__(self, name: str, op: Op, size: Size, effort: Effort, limits: Card):
        self.name, self.op, self.size, self.effort, self.limits = name, op, size, effort, limits
        self.sets = [self._drawn(size, seed) for seed in range(SETS)]
        self.short = self._drawn(fewer(op, size), SETS)
        self._exact: dict[bool, list[np.ndarray]] = {}

    def row(self, by: str, contestant: Contestant, backward: bool) -> Row:
        """Measures one contestant; raises what it raises."""
        run, convert = contestant.program(backward), contestant.convert
        found = contestant.numpy(run(*map(convert, self.short)))
        native = [tuple(map(convert, one)) for one in self.sets]
        return Row(
            self.name, label(self.size), "forward+backward" if backward else "forward", by,
            milliseconds=1e3 * loop(run, native, contestant.wait, self.effort),
            floor=self.limits.floor(*least(self.op, self.size, *self.sets[0], backward)),
            error=worst(found, self.exact(backward)),
        )  # fmt: skip

    def exact(self, backward: bool) -> list[np.ndarray]:
        """What the definition gives in float64: y, or the gradients of ``sum(y dy)``."""
        if backward not in self._exact:
            with jax.enable_x64(True):
                wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), self.short)
                out = of_jax(lambda x: self.op.run("reference", x)).program(backward)(*wide)
                self._exact[backward] = [np.asarray(x) for x in jax.tree.leaves(out)]
        return self._exact[backward]

    def _drawn(self, size: Size, seed: int) -> tuple[dict[str, jax.Array], jax.Array]:
        x = inputs(self.op, size, seed)
        return x, cotangent(self.op, x, seed)


def worst(found: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> float:
    """The largest relative error of an array; NaN if one has any."""
    norms = [
        np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b) for a, b in zip(found, want, strict=True)
    ]
    return math.nan if np.isnan(norms).any() else float(max(norms))
