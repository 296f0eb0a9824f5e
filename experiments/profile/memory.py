"""What a training step needs in memory and time against depth, by residual stream."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from ...archs.config import LMConfig
from ..compare.contestants import base
from ..config import OptimConfig
from ..data.base import Batch
from ..errors import UserError
from ..report import plots, words
from ..report.page import standalone
from ..step import Program
from ..timing import timed

DEPTHS = (4, 8, 16, 32, 64)
LENGTH = 2048
RESIDUALS = ("standard", "checkpoint", "reversible")
ROUNDS = 2
"""Turns that each program takes; the least time counts, since other work only adds to it."""
OUT = Path("runs") / "profile-memory.svg"


class Cost(NamedTuple):
    """Of the gradient of one sequence's loss."""

    bytes: int
    """Temporaries of the compiled program. Parameters and gradients, which all schemes have alike, are arguments and
    results, and do not count."""
    seconds: float


def show(arch: str = "mamba2", depths: Sequence[int] = (), length: int | None = None, out: Path = OUT) -> None:
    """Measures and prints a table, and draws it.

    Args:
      arch: a name as ``subquad compare`` takes it, at its tiny size but for the depth.
      depths: numbers of blocks; none: 4 to 64.
      length: tokens of the one sequence; None: 2,048.
      out: where the plot goes.

    Raises:
      UserError: an unknown architecture, or a depth or length that is none.
    """
    depths, length = tuple(depths) or DEPTHS, LENGTH if length is None else length
    if min(*depths, length) < 1:
        raise UserError(f"depths and length are at least 1, not {min(*depths, length)}")
    model = base(arch)
    title = f"gradient of {arch}, width {model.dim}, one sequence of {length:,}, on {jax.devices()[0].device_kind}"
    grid = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    grid.add_column("depth", justify="right")
    for residual in RESIDUALS:
        grid.add_column(residual, justify="right")
        grid.add_column("ms", justify="right")
    found: dict[str, list[int]] = {residual: [] for residual in RESIDUALS}
    for depth in depths:
        costs = measure([replace(model, depth=depth, residual=residual) for residual in RESIDUALS], length)
        cells = [(words.size(cost.bytes), f"{1e3 * cost.seconds:,.0f}") for cost in costs]
        grid.add_row(str(depth), *(text for cell in cells for text in cell))
        for residual, cost in zip(RESIDUALS, costs, strict=True):
            found[residual].append(cost.bytes)
    Console().print(grid)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(plot(depths, found))
    Console().print(str(out))


def gradient(model: LMConfig, length: int) -> tuple[Program, Any]:
    """The compiled gradient of the trainer's loss on one sequence, and the program that it belongs to."""
    functions = Program(model, OptimConfig(), 1, 1, "float32", 1, 1, False)
    return functions, jax.jit(functions.gradients).lower(functions.state, rows(length)).compile()


def memory_plan(compiled: Any) -> Any:
    """What the compiler says that a program allocates. Raises UserError where it does not say."""
    plan = compiled.memory_analysis()
    if plan is None:
        raise UserError(f"the compiler for {jax.devices()[0].device_kind} does not say what a program allocates")
    return plan


def rows(*shape: int) -> Batch:
    """The shape of batches of ``[..., T]`` tokens; one sequence where only T is given."""
    shape = (1, *shape) if len(shape) == 1 else shape
    tokens = jax.ShapeDtypeStruct(shape, jnp.int32)
    described: Any = Batch
    return described(tokens, tokens, jax.ShapeDtypeStruct(shape, jnp.float32))


def measure(models: Sequence[LMConfig], length: int, rounds: int = ROUNDS) -> list[Cost]:
    """The costs of models that take turns in one process; ``rounds=0`` runs nothing."""
    compiled = [gradient(model, length) for model in models]
    batch = jax.tree.map(lambda row: np.zeros(row.shape, row.dtype), rows(length))
    calls = [partial(run, functions.init(np.uint32(0)), batch) for functions, run in compiled if rounds]
    turns = [[timed(call) for call in calls] for _ in range(rounds)]
    seconds = map(min, zip(*turns, strict=True)) if rounds else [float("nan")] * len(models)
    sizes = [memory_plan(run).temp_size_in_bytes for _, run in compiled]
    return [Cost(*cost) for cost in zip(sizes, seconds, strict=True)]


def plot(depths: Sequence[int], found: dict[str, list[int]]) -> str:
    """Temporaries against depth as an SVG that stands alone, both axes logarithmic."""
    out: list[str] = []
    tints = {residual: f"#0000{0x10 + i:02x}" for i, residual in enumerate(found)}
    with plots.axes(5.6, 3.4, "memory", out) as ax:
        for residual, sizes in found.items():
            ax.plot(depths, sizes, color=tints[residual], lw=2, marker="o", ms=5, mew=0)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(depths, [str(depth) for depth in depths])
        ax.yaxis.set_major_formatter(lambda y, _: words.size(y))
        ax.set_xlabel("depth")
        ax.set_ylabel("temporaries of the gradient")
        ends = {name: (float(depths[-1]), float(sizes[-1])) for name, sizes in found.items()}
        plots.label_ends(ax, ends, tints.__getitem__)
    return standalone(out[0])
