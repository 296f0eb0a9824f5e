"""Cycles of the TPU kernels, counted without a TPU: ``subquad profile tpu``."""

import json
import platform
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ..errors import UserError, nearest
from ..executor import Event, cores
from ..progress import Board
from ..rundir import installed, versions, write_json
from .schedule import GENERATIONS, Compiled, count
from .workloads import PEERS, WORKLOADS, Point, Size

COLUMNS = (
    "TPU", "op", "T,H,K,V", "pass", "kernels", "relayout", "both", "memory floor", "matrix floor",
    "vector floor", "over floor",
    "spill slots", "temporary MB", "of in+out",
)  # fmt: skip
PASSES = ("forward", "forward+backward")
MISSING = "not installed: pip install 'subquad[peers]'"

Row = dict[str, Any]
"""What is recorded of one program: which it is, and its figures, or ``missing``, which says why it has none."""


def show(
    ops: Sequence[str] = (),
    generations: Sequence[str] = (),
    sizes: Sequence[Size] = (),
    record: Path | None = None,
) -> None:
    """Prints the table: cycles per token and head, of a forward pass and of a forward with a backward pass.

    The floors are what the HBM takes for the arguments and results, each once a pass; the matrix unit for the passes
    that the kernels make; and the vector unit for the arithmetic that the recurrence cannot do without, of ops whose
    workload counts it: registers of additions and multiplications over the slots of a bundle, or of exponentials over
    theirs, whichever are more. Channels of ops without heads count as H heads of K.

    Args:
      ops: of ``workloads.WORKLOADS``; none: all.
      generations: of ``schedule.GENERATIONS``; none: v6e.
      sizes: none: 8,192 tokens, 16 heads of 128.
      record: a JSON file that gets the figures too; what it holds of other programs stays if the versions are the same.

    Raises:
      UserError: an unknown op or generation, no libtpu, or no folder for the record.
    """
    for name, known in [*((op, WORKLOADS) for op in ops), *((g, GENERATIONS) for g in generations)]:
        if name not in known:
            raise UserError(f"there is no {name!r}: {nearest(name, known)}")
    if record is not None and not record.absolute().parent.is_dir():
        raise UserError(f"there is no folder {record.parent} for the record")
    if find_spec("libtpu") is None:
        raise UserError("cannot compile for a TPU: pip install 'subquad[tpu]' brings libtpu")
    rows: list[Row] = []
    for counted in measure(ops or tuple(WORKLOADS), tuple(generations) or ("v6e",), tuple(sizes) or (Size(),)):
        rows = sorted(rows + counted, key=_which)
        if record is not None:
            write_json(record, joined(json.loads(record.read_text()) if record.exists() else {}, counted))
    grid = Table(title="cycles per token and head", box=box.SIMPLE_HEAD, title_justify="left")
    for column in COLUMNS:
        grid.add_column(column, justify="left" if column in COLUMNS[:4] else "right")
    for row in rows:
        grid.add_row(*cells(row))
    console = Console(width=max(Console().width, 150))
    console.print(grid)
    for row in rows:
        if reason := row.get("missing"):
            console.print(f"{row['TPU']} {row['op']}, {row['pass']}: {reason}", highlight=False, markup=False)


def measure(ops: Sequence[str], generations: Sequence[str], sizes: Sequence[Size]) -> Iterator[list[Row]]:
    """Counts every program, an op with both its passes in a process of its own, as many at a time as there are cores.

    Yields:
      The rows of an op, as soon as it is counted.
    """
    jobs = [(generation, op, size) for generation in generations for op in ops for size in sizes]
    names = {job: f"{job[0]} {job[1]}" + (f" {_shape(job[2])}" if len(sizes) > 1 else "") for job in jobs}
    pool = ThreadPoolExecutor(len(cores()))
    with Board() as board:
        for name in names.values():
            board.add(name, 1)

        def work(job: tuple[str, str, Size]) -> list[Row]:
            board.show(Event("started", names[job]))
            return list(_count(*job))

        futures = {pool.submit(work, job): names[job] for job in jobs}
        try:
            for future in as_completed(futures):
                yield future.result()
                board.show(Event("finished", futures[future]))
        finally:
            pool.shutdown(cancel_futures=True)


def _count(generation: str, op: str, size: Size) -> Iterator[Row]:
    points = [Point(op, size, backward) for backward in (False, True)]
    package = WORKLOADS[op].package
    counted = [MISSING] * 2 if package and not installed([package]) else count(points, generation)
    for point, one in zip(points, counted, strict=True):
        which = {"TPU": generation, "op": op, **size._asdict(), "pass": PASSES[point.backward]}
        yield which | ({"missing": one} if isinstance(one, str) else figures(generation, point, one))


def figures(generation: str, point: Point, one: Compiled) -> dict[str, float]:
    """Of one program: cycles per token and head, shares, and bytes."""
    chip, size = GENERATIONS[generation], point.size
    each = 1 / (size.B * size.T * size.H)
    moved = lambda n: n / chip.bandwidth * chip.clock * each  # noqa: E731
    slots = one.kernels[0].slots
    vector = max(n / slots[unit] for n, unit in zip(point.least_vector(), ("VALU", "EUP"), strict=True)) * each
    found: dict[str, float] = {
        "kernels": one.cycles * each,
        "relayout": moved(one.relayout_bytes),
        "memory floor": moved(point.least_bytes()),
        "matrix floor": one.used("MXU") * each,
        "vector floor": vector,
        "spill slots": one.used("VLOAD:FILL", "VSTORE:SPILL") / max(one.cycles, 1),
    }
    found = {name: round(x, 4) for name, x in found.items()}
    return found | {"temporary bytes": one.temporary_bytes, "in+out bytes": point.least_bytes()}


def both(row: Row) -> float:
    """Cycles with those of the relayouts around the kernels."""
    return row["kernels"] + row["relayout"]


def floor(row: Row) -> float:
    """The largest floor."""
    return max(row["memory floor"], row["matrix floor"], row["vector floor"])


def over_floor(row: Row) -> float:
    """How many times the largest floor a program takes: no less than once, since kernels are counted without waits."""
    return max(1.0, both(row) / floor(row))


def cells(row: Row) -> tuple[str, ...]:
    """What the table shows of one program, by ``COLUMNS``."""
    which = (row["TPU"], row["op"], ",".join(str(row[axis]) for axis in "THKV"), row["pass"])
    if "missing" in row:
        return which + ("–",) * (len(COLUMNS) - len(which))
    cycles = (row["kernels"], row["relayout"], both(row))
    floors = (row["memory floor"], row["matrix floor"], row["vector floor"], over_floor(row))
    temporary = row["temporary bytes"]
    return (
        *which, *(f"{x:.2f}" if x else "–" for x in cycles + floors), f"{row['spill slots']:.0%}",
        f"{temporary / 1e6:.0f}", f"{temporary / row['in+out bytes']:.2f}",
    )  # fmt: skip


def joined(old: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """A record of these rows, and of those that it held of other programs if the versions are the same."""
    host = {"machine": platform.machine(), "versions": versions() | peer_versions()}
    kept = old.get("rows", ()) if old.get("versions") == host["versions"] else ()
    every = {_which(row): row for row in (*kept, *rows) if row["op"] in WORKLOADS}
    return host | {"rows": sorted(every.values(), key=_which)}


def _which(row: Row) -> tuple[int, ...]:
    """What a row is of, in the order of a record."""
    listed = (list(GENERATIONS), "TPU"), (list(WORKLOADS), "op"), (PASSES, "pass")
    chip, op, one_pass = (names.index(row[column]) for names, column in listed)
    return (chip, *(row[axis] for axis in Size._fields), op, one_pass)


def peer_versions() -> dict[str, str]:
    """Of the compiler, and of the peers that are installed."""
    return installed(dict.fromkeys(["libtpu", *(peer.package for peer in PEERS.values() if peer.package)]))


def size_of(text: str) -> Size:
    """T,H,K,V as a size.

    Raises:
      UserError: it is something else.
    """
    try:
        T, H, K, V = map(int, text.split(","))
    except ValueError:
        raise UserError(f"a shape is T,H,K,V such as 8192,16,128,128, not {text!r}") from None
    if min(T, H, K, V) < 1:
        raise UserError(f"T, H, K and V are at least 1 each, not {text}")
    return Size(T, H, K, V)


def _shape(size: Size) -> str:
    return ",".join(map(str, size[:4]))
