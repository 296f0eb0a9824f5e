"""What ``subquad compare`` and ``subquad report`` do."""

import shlex
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ..errors import UserError, nearest
from ..progress import Board
from ..report import page, terminal
from ..sweep import digest, local_executor
from . import costs, rows
from .cells import cells
from .collect import collect
from .plan import MAX_RATIO
from .run import claim, train_all
from .settings import Comparison, Task

if TYPE_CHECKING:
    from ..commands import Compare


def compare(comparison: Comparison, root: Path, workers: int | None = None) -> int:
    """Runs a comparison, or goes on where it stopped; prints the tables and writes the page and the rows.

    Args:
      comparison: what to compare.
      root: its directory.
      workers: processes; None: one a core, or one on an accelerator.

    Returns:
      The exit status: 1 if a point failed, else 0. A missed expectation is shown, and is no failure of the command.
    """
    began = time.monotonic()
    found = cells(comparison, root)
    fresh = not (root / "points").exists()
    claim(comparison, root, shlex.join(["subquad", *sys.argv[1:]]))
    failures = train_all(found, local_executor(workers), Board())
    if not failures:
        failures = costs.measure_all(found, root, local_executor(1, costs.measure), Board())
    show(root, time.monotonic() - began if fresh else None, failures)
    return 1 if failures else 0


def show(root: Path, seconds: float | None = None, failures: dict[str, str] | None = None) -> int:
    """Rebuilds the report of a comparison and prints its tables."""
    study = collect(root, seconds, failures)
    console = Console(width=None if sys.stdout.isatty() else 160)
    terminal.show(study, console)
    written = rows.write(root)
    console.print(f"{page.write(study, root / 'report')}  {written}", soft_wrap=True, highlight=False)
    if seconds is not None:
        console.print(f"{seconds:.0f} s of wall time", highlight=False)
    return 0


def customised(given: "Compare") -> tuple[Comparison, str]:
    """The preset with the command line's changes, and what they add to the default directory's name.

    A preset's expectations are about its own settings: they are dropped where a task is changed.

    Raises:
      UserError: an unknown preset or task, or learning rates that no grid may have.
    """
    from ..configs import COMPARISONS

    if given.preset not in COMPARISONS:
        raise UserError(f"there is no preset {given.preset!r}: {nearest(given.preset, COMPARISONS)}")
    preset = COMPARISONS[given.preset]()
    archs = preset.archs if given.archs is None else tuple(given.archs.split(","))
    tasks = [changed(task, given) for task in chosen(preset.tasks, given.task)]
    comparison = Comparison(preset.name, archs, tuple(tasks))
    return comparison, "" if comparison == preset else f"-{digest(comparison)}"


def chosen(tasks: tuple[Task, ...], names: str | None) -> list[Task]:
    """The preset's tasks by name; a path makes a text task on those files."""
    if names is None:
        return list(tasks)
    known = {task.name: task for task in tasks}
    found = []
    for name in names.split(","):
        if name in known:
            found.append(known[name])
        elif Path(name).exists() and "text" in known:
            from ..data import FilesConfig

            length = known["text"].data.build().length
            data = FilesConfig((name,), length=length)
            found.append(replace(known["text"], name=Path(name).stem, data=data, expectations=()))
        else:
            raise UserError(f"there is no task {name!r}: {nearest(name, known)} A path of files works too")
    return found


def changed(task: Task, given: "Compare") -> Task:
    """The task with the settings that the command line gives."""
    same = ("depth", "heads", "steps", "batch", "seeds", "selection_seeds", "embed_std")
    values: dict[str, Any] = {name: getattr(given, name) for name in same if getattr(given, name) is not None}
    values |= {"dims": given.dim} if given.dim else {}
    values |= {"lrs": given.lrs} if given.lrs else {}
    if given.mlp is not None and task.mlp is not None:
        values["mlp"] = replace(task.mlp, hidden=given.mlp)  # pyright: ignore[reportCallIssue]
    for name in ("depth", "heads", "steps", "batch", "seeds", "selection_seeds"):
        if values.get(name, 1) < 1:
            raise UserError(f"--{name.replace('_', '-')} is at least 1, not {values[name]}")
    steps = list(zip(task.lrs if not given.lrs else given.lrs, (given.lrs or task.lrs)[1:], strict=False))
    if any(not low < high <= low * MAX_RATIO * 1.001 for low, high in steps):
        raise UserError(
            f"--lrs must ascend by at most {MAX_RATIO:g} times, not {' '.join(f'{lr:g}' for lr in given.lrs)}"
        )
    made = replace(task, **values)
    harmless = {"seeds", "selection_seeds"}
    touched = {f.name for f in fields(task) if getattr(task, f.name) != getattr(made, f.name)} - harmless
    return replace(made, expectations=()) if touched else made
