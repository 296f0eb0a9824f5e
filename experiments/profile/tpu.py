"""Cycles of the TPU kernels, counted without a TPU: ``subquad profile tpu``."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from rich import box
from rich.console import Console
from rich.table import Table

from ..errors import UserError, nearest
from .schedule import GENERATIONS, Compiled, count
from .workloads import WORKLOADS, Point, Size

COLUMNS = (
    "TPU", "op", "T,H,K,V", "pass", "kernels", "relayout", "both", "memory floor", "matrix floor",
    "vector floor", "over floor",
    "spill slots", "temporary MB", "of in+out",
)  # fmt: skip


def show(ops: Sequence[str] = (), generations: Sequence[str] = (), sizes: Sequence[Size] = ()) -> None:
    """Prints the table: cycles per token and head, of a forward pass and of a forward with a backward pass.

    The floors are what the HBM takes for the arguments and results, each once a pass; the matrix unit for the passes
    that the kernels make; and the vector unit for the arithmetic that the recurrence cannot do without, of ops whose
    workload counts it: registers of additions and multiplications over the slots of a bundle, or of exponentials over
    theirs, whichever are more. Channels of ops without heads count as H heads of K.

    Args:
      ops: of ``workloads.WORKLOADS``; none: all.
      generations: of ``schedule.GENERATIONS``; none: v6e.
      sizes: none: 8,192 tokens, 16 heads of 128.

    Raises:
      UserError: an unknown op or generation, or one that the compiler refuses.
    """
    for name, known in [*((op, WORKLOADS) for op in ops), *((g, GENERATIONS) for g in generations)]:
        if name not in known:
            raise UserError(f"there is no {name!r}: {nearest(name, known)}")
    points = [Point(op, size, b) for op in ops or WORKLOADS for size in sizes or [Size()] for b in (False, True)]
    generations = tuple(generations) or ("v6e",)
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda generation: count(points, generation), generations))
    grid = Table(title="cycles per token and head", box=box.SIMPLE_HEAD, title_justify="left")
    for column in COLUMNS:
        grid.add_column(column, justify="left" if column in COLUMNS[:4] else "right")
    for generation, compiled in zip(generations, found, strict=True):
        for point, one in zip(points, compiled, strict=True):
            grid.add_row(*row(generation, point, one))
    Console(width=max(Console().width, 140)).print(grid)


def row(generation: str, point: Point, one: Compiled) -> tuple[str, ...]:
    """The cells of one program."""
    chip, size = GENERATIONS[generation], point.size
    each = 1 / (size.B * size.T * size.H)
    moved = lambda n: n / chip.bandwidth * chip.clock * each  # noqa: E731
    cycles, relayout, memory = one.cycles * each, moved(one.relayout_bytes), moved(point.least_bytes())
    matrix = one.used("MXU") * each
    slots = one.kernels[0].slots
    vector = max(n / slots[unit] for n, unit in zip(point.least_vector(), ("VALU", "EUP"), strict=True)) * each
    return (
        generation, point.op, ",".join(map(str, size[:4])), "forward+backward" if point.backward else "forward",
        f"{cycles:.2f}", f"{relayout:.2f}", f"{cycles + relayout:.2f}", f"{memory:.2f}", f"{matrix:.2f}",
        f"{vector:.2f}", f"{(cycles + relayout) / max(memory, matrix, vector):.2f}",
        f"{one.used('VLOAD:FILL', 'VSTORE:SPILL') / max(one.cycles, 1):.0%}",
        f"{one.temporary_bytes / 1e6:.0f}", f"{one.temporary_bytes / point.least_bytes():.2f}",
    )  # fmt: skip
