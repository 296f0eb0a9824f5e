"""Ops on a GPU, beside what the card can do, the XLA path and other libraries, in one run: ``subquad profile gpu``.

A time is the median over rounds of a loop of calls that are not waited for one by one, over inputs that take turns, so
that neither a launch nor a warm cache counts. Errors are relative norms against the definition in float64, on fewer
tokens and heads.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from ...kernels import dispatch
from ..errors import UserError, nearest
from ..rundir import versions, write_json
from . import gpu_peers
from .workloads import OPS as WORKLOADS
from .workloads import SOURCES, Point, Size

OPS = {
    name: work
    for name, work in WORKLOADS.items()
    if work.arguments.keys() >= {"k", "v"} and work.call.__name__ in dispatch.IMPLEMENTATIONS
}
"""The recurrences whose state is a matrix a head, of which ``flops`` knows the products."""
SIZES = (
    Size(4096, 16, 128, 128, 4),
    Size(32768, 16, 128, 128, 1),
    Size(2048, 32, 64, 64, 8),
    Size(8192, 8, 256, 256, 2),
)
TINY = (Size(128, 1, 64, 64, 1),)
SETS = 3
"""Inputs that take turns."""


class Effort(NamedTuple):
    """How long to measure."""

    calls: int
    rounds: int
    probe: int
    """The side of the matrices with which the card itself is measured."""


FULL, QUICK = Effort(20, 7, 8192), Effort(2, 3, 256)


class Row(NamedTuple):
    """One contestant at one op, size and pass."""

    op: str
    size: Size
    backward: bool
    contestant: str
    milliseconds: float | None
    floor: float | None
    """Milliseconds that the card needs at least for the bytes of arguments and results, or the products of a scan."""
    error: float | None
    """Of y, or of the worst gradient where there is a backward pass."""
    refusal: str = ""


def show(ops: Sequence[str] = (), tiny: bool = False, record: Path | None = None) -> None:
    """Measures and prints a table.

    Args:
      ops: of ``OPS``; none: all.
      tiny: at toy size. Without a GPU that is so by itself.
      record: a JSON file that gets the figures too.

    Raises:
      UserError: an unknown op, or no folder for the record.
    """
    for name in ops:
        if name not in OPS:
            raise UserError(f"there is no {name!r}: {nearest(name, OPS)}")
    if record is not None and not record.absolute().parent.is_dir():
        raise UserError(f"there is no folder {record.parent} for the record")
    console, device = Console(), jax.devices()[0]
    if device.platform != "gpu" and not tiny:
        console.print("there is no GPU: a toy size on the CPU, whose times say nothing of a GPU")
    tiny = tiny or device.platform != "gpu"
    effort = QUICK if tiny else FULL
    bandwidth, rate = card(effort)
    title = f"{device.device_kind}: copies {bandwidth / 1e9:,.0f} GB/s, bfloat16 products {rate / 1e12:,.2f} TFLOP/s"
    grid = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("op", "B,T,H,K,V", "pass", "by", "ms", "floor ms", "of floor", "error"):
        grid.add_column(name, justify="left" if name in ("op", "B,T,H,K,V", "pass", "by") else "right")
    rows = []
    for op in ops or OPS:
        for size in TINY if tiny else SIZES:
            for row in measure(op, size, effort, bandwidth, rate):
                rows.append(row)
                grid.add_row(*cells(row))
    Console(width=max(console.width, 120)).print(grid)
    for refusal in dict.fromkeys(f"{row.contestant}: {row.refusal}" for row in rows if row.refusal):
        console.print(refusal, markup=False)
    if record is not None:
        host = {"device": device.device_kind, "platform": device.client.platform_version}
        host |= {"versions": versions() | gpu_peers.versions()}
        figures = [row._asdict() | {"size": row.size._asdict()} for row in rows]
        write_json(record, host | {"bytes_per_second": bandwidth, "flops_per_second": rate, "rows": figures})


def cells(row: Row) -> tuple[str, ...]:
    """A row as it is printed."""
    size, passed = row.size, "forward+backward" if row.backward else "forward"
    named = (row.op, f"{size.B},{size.T},{size.H},{size.K},{size.V}", passed, row.contestant)
    if row.milliseconds is None or row.floor is None:
        return (*named, "refused")
    error = "" if row.error is None else f"{row.error:.1e}"
    return (*named, f"{row.milliseconds:.3f}", f"{row.floor:.3f}", f"{row.floor / row.milliseconds:.0%}", error)


def card(effort: Effort) -> tuple[float, float]:
    """Bytes a second that a copy reads and writes, and operations a second of a bfloat16 matrix product."""
    n = effort.probe
    arrays = [jnp.full((n, n), i, jnp.bfloat16) for i in range(SETS)]
    copy, product = jax.jit(lambda x: x + 1), jax.jit(lambda x: x @ x)
    copied = loop(copy, arrays, jax.block_until_ready, effort)
    return 2 * arrays[0].nbytes / copied, 2 * n**3 / loop(product, arrays, jax.block_until_ready, effort)


def loop(call: Callable[[Any], Any], sets: Sequence[Any], wait: Callable[[Any], Any], effort: Effort) -> float:
    """Median seconds of a call; ``sets`` take turns."""
    for one in sets:
        wait(call(one))
    seconds = []
    for _ in range(effort.rounds):
        began = time.perf_counter()
        for n in range(effort.calls):
            out = call(sets[n % len(sets)])
        wait(out)
        seconds.append((time.perf_counter() - began) / effort.calls)
    return statistics.median(seconds)


def inputs(op: str, size: Size, seed: int) -> dict[str, jax.Array]:
    """Arguments as a layer has them: keys and queries of unit length, gates by softplus."""
    made = {}
    for n, (name, (axes, source)) in enumerate(OPS[op].arguments.items()):
        shape = (size.B, size.T, *size.of(axes))
        x = SOURCES[source](jax.random.normal(jax.random.key(100 * seed + n), shape))
        made[name] = x * size.K**-0.5 if source == "norm" else x
    return made


def flops(size: Size, backward: bool) -> int:
    """Of a scan: each token writes to the state and reads it; the backward pass costs twice as much."""
    return 4 * size.B * size.T * size.H * size.K * size.V * (3 if backward else 1)


def measure(op: str, size: Size, effort: Effort, bandwidth: float, rate: float) -> list[Row]:
    """All contestants, forward and with a backward pass."""
    call, few = OPS[op].call, size._replace(B=1, T=min(size.T, 512), H=min(size.H, 2))
    impls = [i for i in dispatch.PLATFORMS["gpu"] if i in dispatch.IMPLEMENTATIONS[call.__name__]]
    contestants = {i: gpu_peers.of_jax(lambda x, i=i: call(**x, impl=i)[0]) for i in impls}
    contestants |= gpu_peers.contestants(op)
    sets, short = [inputs(op, size, seed) for seed in range(SETS)], inputs(op, few, SETS)
    rows = []
    for backward in (False, True):
        floor = 1e3 * max(Point(op, size, backward).least_bytes() / bandwidth, flops(size, backward) / rate)
        want = exact(call, short, backward)
        for name, contestant in contestants.items():
            row = Row(op, size, backward, name, None, floor, None)
            try:
                run = contestant.program(backward)
                found = contestant.numpy(run(contestant.convert(short)))
                native = [contestant.convert(one) for one in sets]
                seconds = loop(run, native, contestant.wait, effort)
            except Exception as error:  # a peer, or a kernel, that does not take this shape or machine
                rows.append(row._replace(refusal=(str(error).strip() or type(error).__name__).splitlines()[0]))
                continue
            miss = worst(found, want) if contestant.same else None
            rows.append(row._replace(milliseconds=1e3 * seconds, error=miss))
    return rows


def exact(call: Callable, given: dict[str, jax.Array], backward: bool) -> list[np.ndarray]:
    """What the definition gives in float64: y, or the gradients of ``sum(y v)``."""
    with jax.enable_x64(True):
        wide = {name: np.asarray(x, np.float64) for name, x in given.items()}
        program = gpu_peers.of_jax(lambda x: call(**x, impl="reference")[0]).program(backward)
        return [np.asarray(x) for x in jax.tree.leaves(program(wide))]


def worst(found: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> float:
    """The largest relative error of an array; NaN if one has any."""
    norms = [
        np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b) for a, b in zip(found, want, strict=True)
    ]
    return math.nan if np.isnan(norms).any() else float(max(norms))
