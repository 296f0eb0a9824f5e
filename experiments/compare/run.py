"""Runs a comparison: points through an executor as they fall due, then costs alone, then the report."""

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..executor import Executor
from ..progress import Board
from ..rundir import disk_errors, write_json
from ..serialize import difference, from_json, load_user_file, to_json, user_files
from ..sweep import note
from .cells import Cell
from .settings import Comparison, Task

SETTINGS = "comparison.json"


def claim(comparison: Comparison, root: Path, command: str) -> None:
    """Makes the directory this comparison's, or checks that it is, on the same data.

    What the report needs of the data is kept beside the settings, so that a report can be rebuilt without it.

    Raises:
      UserError: it belongs to another comparison or to other data, or cannot be written.
    """
    given = to_json(comparison)
    data = {task.name: facts(task) for task in comparison.tasks}
    if not (root / SETTINGS).is_file():
        record = {"comparison": given, "files": user_files(comparison), "command": command, "data": data}
        with disk_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            write_json(root / SETTINGS, record)
        return
    record = json.loads((root / SETTINGS).read_text())
    if found := difference(record["comparison"], given):
        field, old, new = found
        raise UserError(f"{root} holds another comparison: {field} is {old!r} there, not {new!r}; give another --out")
    for name, now in data.items():
        if record["data"][name]["sha256"] != now["sha256"]:
            raise UserError(f"the data of {name} is not what {root} was begun on; give another --out")


def facts(task: Task) -> dict[str, Any]:
    """What identifies a task's data, and how its test split is scored."""
    source = task.data.build()
    return {
        "sha256": source.sha256,
        "metric": source.metric,
        "length": source.length,
        "evaluation_length": source.evaluation("test").tokens.shape[-1],
        "baselines": source.baselines("test"),
        "evaluated": source.evaluation_bytes("test") or round(float(source.evaluation("test").weights.sum())),
    }


def read(root: Path) -> tuple[Comparison, dict[str, Any]]:
    """The comparison of a directory, and the record beside it: the command that began it and its data's facts.

    Raises:
      UserError: there is none.
    """
    path = root / SETTINGS
    if not path.is_file():
        raise UserError(f"{root} is not a comparison: it has no {SETTINGS}")
    record = json.loads(path.read_text())
    for file in record["files"].values():
        load_user_file(file)
    return from_json(record["comparison"]), record


def train_all(found: Sequence[Cell], executor: Executor, board: Board) -> dict[str, str]:
    """Runs every point that is due, and those that fall due as others finish.

    Args:
      found: the comparison's cells.
      executor: where points run; it is closed at the end.
      board: shows the progress.

    Returns:
      The message of each point that failed; a failed point holds back its own cell alone.
    """
    failures: dict[str, str] = {}
    owner: dict[str, Cell] = {}
    more = {id(cell): 0 for cell in found}

    def submit(cell: Cell) -> None:
        trials, choice, finished = cell.progress()
        for p in finished.values():
            if p.name not in owner:
                owner[p.name] = cell
                board.add(p.name, p.run.steps, finished=True)
        for p in map(cell.point, trials):
            if p.name not in owner:
                owner[p.name] = cell
                board.add(p.name, p.run.steps)
                executor.submit(p.job())
        known = len(finished) + len(trials)
        more[id(cell)] = known if choice else max(cell.least(), known + cell.task.seeds)
        board.expect(sum(more.values()))

    with closing(executor), board:
        for cell in found:
            submit(cell)
        for event in executor.events():
            note(event, board, failures)
            if event.kind == "finished":
                submit(owner[event.name])
    return failures
