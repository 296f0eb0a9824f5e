"""The cells of a comparison: which runs each architecture needs on each task, and which have finished."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...archs import LMConfig
from ..config import RunConfig
from ..sweep import Point, point
from .contestants import Contestant, contestants
from .plan import Choice, Trial, due
from .settings import Comparison, Task


@dataclass(frozen=True)
class Cell:
    """One architecture on one task at one width."""

    task: Task
    dim: int
    contestant: Contestant
    root: Path

    @property
    def model(self) -> LMConfig:
        """What is trained."""
        return self.contestant.model

    def point(self, trial: Trial) -> Point:
        """The run of a trial. The seed draws parameters and data order: equal seeds mean equal batches for all."""
        optim = replace(self.task.optim, lr=trial.lr)
        run = RunConfig(self.model, self.task.data, optim, self.task.steps, self.task.batch, trial.seed)
        name = f"{self.task.name}-d{self.dim}-{self.contestant.arch}-{trial.stage}-lr{trial.lr:g}-s{trial.seed}"
        return point(name, run, self.root / "points")

    def progress(self) -> tuple[list[Trial], Choice | None, dict[Trial, Point]]:
        """What is due now, the chosen learning rate if selection is over, and the finished points."""
        finished: dict[Trial, Point] = {}
        while True:
            losses = {trial: validation_loss(p) for trial, p in finished.items()}
            trials, choice = due(self.task.lrs, self.task.selection_seeds, self.task.seeds, losses)
            news = {trial: p for trial in trials if (p := self.point(trial)).finished}
            if not news:
                return trials, choice, finished
            finished |= news

    def least(self) -> int:
        """How many runs it needs if its grid does not grow."""
        return len(self.task.lrs) * self.task.selection_seeds + self.task.seeds


def cells(comparison: Comparison, root: Path) -> list[Cell]:
    """Every cell, in the comparison's order.

    Raises:
      UserError: an architecture is unknown, or its parameters cannot be matched.
    """
    return [
        Cell(task, dim, contestant, root)
        for task in comparison.tasks
        for dim in task.dims
        for contestant in contestants(comparison.archs, task, dim)
    ]


def validation_loss(p: Point) -> float:
    """The finished point's validation loss; infinite if it diverged."""
    result = p.result()
    loss = result["validation"].get("loss")
    return math.inf if result["diverged"] or loss is None else loss


def groups(found: Sequence[Cell]) -> list[tuple[Task, int, list[Cell]]]:
    """The cells by task and width: each is one table."""
    tables: dict[tuple[str, int], list[Cell]] = {}
    for cell in found:
        tables.setdefault((cell.task.name, cell.dim), []).append(cell)
    return [(group[0].task, dim, group) for (_, dim), group in tables.items()]
