"""The longest sequence that trains within a memory: by the compiler's account, nothing runs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
from rich import box
from rich.console import Console
from rich.table import Table

from ...archs.config import LMConfig
from ...archs.table import ARCHS
from ..compare.contestants import base
from ..config import OptimConfig
from ..errors import UserError
from ..step import Program
from .memory import memory_plan, rows

ARCHITECTURES = ("transformer", "transformer+window=512", "nsa", "mamba2", "mamba2+residual=reversible")
DIM, DEPTH = 256, 8
GIB = 8.0
START = 4096
"""Where the search starts."""
LEAST, LONGEST = 2, 2**24


def show(archs: Sequence[str] = (), gib: float | None = None) -> None:
    """Searches and prints a table, an architecture as soon as it is known.

    Args:
      archs: names as ``subquad compare`` takes them; none: those of ``ARCHITECTURES`` that there are.
      gib: the memory in GiB; None: 8.

    Raises:
      UserError: an unknown architecture, or no memory.
    """
    gib = GIB if gib is None else gib
    if not gib > 0:
        raise UserError(f"the memory is above 0 GiB, not {gib:g}")
    archs = archs or [arch for arch in ARCHITECTURES if arch.partition("+")[0] in ARCHS]
    models = {arch: replace(base(arch), dim=DIM, depth=DEPTH) for arch in archs}
    title = f"a training step of batch 1, width {DIM}, {DEPTH} layers within {gib:g} GiB"
    grid = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("architecture", "longest T", "bytes a token there"):
        grid.add_column(name, justify="left" if name == "architecture" else "right")
    for arch, model in models.items():
        T, used = longest(lambda T, model=model: step_bytes(model, T), gib * 2**30)
        grid.add_row(arch, f"{T:,}" if T else f"below {LEAST}", f"{used / T:,.0f}" if T else "")
    Console().print(grid)


def step_bytes(model: LMConfig, T: int) -> int:
    """What a training step on one sequence holds at once: the state, its batch, results and temporaries."""
    functions = Program(model, OptimConfig(), 1, 1, "float32", 1, 1, False)
    lr = jax.ShapeDtypeStruct((), jnp.float32)
    plan = memory_plan(functions.chunk.lower(functions.state, rows(1, 1, T), lr).compile())
    given = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return given + plan.temp_size_in_bytes


def longest(need: Callable[[int], float], limit: float, start: int = START) -> tuple[int, float]:
    """The longest T of the grid 2, 3, 4, 6, 8, 12, ... whose need is within the limit, and that need.

    A need is compiled for, which takes seconds, so each is asked for once and the search is short: it steps as far as
    a need in proportion to the length would allow, then between two known needs as a power of the length would.

    Args:
      need: what a length needs; it grows with the length.
      limit: the most that is allowed.
      start: a length of the grid.

    Returns:
      The length, 0 where even the shortest is too long.
    """
    powers = [2**k for k in range(1, LONGEST.bit_length())]
    grid = [length for power in powers for length in (power, power * 3 // 2) if length <= LONGEST]
    fits, fails, at = -1, len(grid), grid.index(start)
    needs: dict[int, float] = {}
    while fails - fits > 1:
        needs[at] = float(need(grid[at]))
        fits, fails = (at, fails) if needs[at] <= limit else (fits, at)
        power = 1.0
        if fits in needs and fails in needs:
            power = max(math.log(needs[fails] / needs[fits]) / math.log(grid[fails] / grid[fits]), 0.1)
        reach = grid[at] * (limit / needs[at]) ** (1 / power)
        at = sum(length <= reach for length in grid) - 1
        at = min(max(at, fits + 1), fails - 1)
    return (grid[fits], needs[fits]) if fits >= 0 else (0, math.nan)
