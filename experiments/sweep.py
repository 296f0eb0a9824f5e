"""A sweep: run configurations, one directory each, through an executor. A finished point is never run twice."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .executor import Event, Executor, Job, LocalExecutor, Report, cores
from .progress import Board

if TYPE_CHECKING:
    from .config import RunConfig

FLOPS_PER_WORKER = 5e9
"""Assumed where nothing has been measured: floating-point operations a second of one core on a small model."""


@dataclass(frozen=True)
class Point:
    """One configuration of a sweep and the directory that its run fills."""

    name: str
    run: "RunConfig"
    directory: Path

    @property
    def finished(self) -> bool:
        """Whether its result is there."""
        return (self.directory / "result.json").is_file()

    def result(self) -> dict[str, Any]:
        """The finished point's result."""
        return json.loads((self.directory / "result.json").read_text())

    def job(self) -> Job:
        """What an executor runs."""
        from .serialize import to_json, user_files

        return Job(self.name, executable(self.run), (to_json(self.run), user_files(self.run), str(self.directory)))


def digest(config: Any) -> str:
    """Eight hexadecimal digits that stand for a configuration."""
    from .serialize import to_json

    return hashlib.sha256(json.dumps(to_json(config), sort_keys=True).encode()).hexdigest()[:8]


def executable(run: "RunConfig") -> str:
    """What points share a compiled program by: the configuration without learning rate and seeds, which are traced."""
    return digest(replace(run, seed=0, data_seed=0, optim=replace(run.optim, lr=1.0)))


def point(name: str, run: "RunConfig", root: Path) -> Point:
    """The point of a configuration: its directory is named by the readable name and the configuration's hash."""
    name = f"{re.sub(r'[^A-Za-z0-9._=+-]+', '-', name)}-{digest(run)}"
    return Point(name, run, root / name)


def grid_points(found: Any, root: Path) -> list[Point]:
    """The points of what a user's function returned.

    Args:
      found: a list of RunConfigs, or a dict from names to them.
      root: the sweep's directory.

    Returns:
      One point a configuration, in order.

    Raises:
      UserError: it is something else, empty, or holds a configuration twice.
    """
    from .config import RunConfig

    named = list(found.items()) if isinstance(found, Mapping) else None
    if named is None:
        if isinstance(found, str) or not isinstance(found, Iterable):
            raise UserError(f"a sweep is a list of RunConfigs or a dict of them by name, not {type(found).__name__}")
        named = [(short_name(run), run) for run in found if _checked(run, RunConfig)]
    points = [point(str(name), run, root) for name, run in named if _checked(run, RunConfig)]
    if not points:
        raise UserError("the sweep is empty: its function returned no RunConfig")
    hashes = [digest(p.run) for p in points]
    twice = {p.name for p in points if hashes.count(digest(p.run)) > 1}
    if twice:
        raise UserError(f"the sweep holds one configuration twice: {', '.join(sorted(twice))}")
    return points


def _checked(run: Any, kind: type) -> bool:
    if not isinstance(run, kind):
        raise UserError(f"a sweep holds RunConfigs, not {type(run).__name__}")
    return True


def short_name(run: "RunConfig") -> str:
    """The mixers, learning rate and seed: enough to tell the points of most sweeps by eye."""
    mixers = dict.fromkeys(type(mixer).__name__.removesuffix("Config").lower() for mixer in run.model.pattern)
    return f"{'+'.join(mixers)}-d{run.model.dim}-lr{run.optim.lr:g}-s{run.seed}"


def shard(points: Sequence[Point], text: str | None) -> list[Point]:
    """Every n-th point from the i-th, by ``i/n`` with i from 1: what one task of a job array runs.

    Raises:
      UserError: the text is not ``i/n`` with 1 <= i <= n.
    """
    if text is None:
        return list(points)
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard {text} is not i/n with 1 <= i <= n, such as 1/4")
    return list(points[int(match[1]) - 1 :: int(match[2])])


@dataclass(frozen=True)
class Estimate:
    """How long the points still to run will take."""

    seconds: float
    source: str


def estimate(points: Sequence[Point], workers: int) -> Estimate:
    """From the finished points' own times where any is finished; else from the model's FLOPs, and it says so."""
    waiting = [p for p in points if not p.finished]
    flops = {p.name: training_flops(p.run) for p in points}
    timed = [(flops[p.name], seconds) for p in points if p.finished and (seconds := p.result().get("seconds"))]
    if timed:
        rate = sum(f for f, _ in timed) / sum(s for _, s in timed)
        source = f"measured on {len(timed)} finished points"
    else:
        rate = FLOPS_PER_WORKER
        source = f"from the model's FLOPs at an assumed {rate / 1e9:g} GFLOP/s a worker, without compilation"
    return Estimate(sum(flops[p.name] for p in waiting) / rate / max(1, workers), source)


def training_flops(run: "RunConfig") -> float:
    """Forward and backward over every token of the run."""
    return 3 * run.model.flops_per_token(run_length(run)) * run.steps * run.batch * run_length(run)


def run_length(run: "RunConfig") -> int:
    """Tokens of one row of the run's data."""
    return run.data.build().length


def run_point(payload: tuple[Any, dict[str, str], str], report: Report) -> None:
    """Trains one point: what a worker process runs."""
    from .serialize import from_json, load_user_file
    from .train import train

    config, files, directory = payload
    for file in files.values():
        load_user_file(file)
    train(from_json(config), Path(directory), sinks=(LiveLoss(report),), progress=False)


class LiveLoss:
    """A sink that hands the training loss to the sweep's display."""

    def __init__(self, report: Report):
        self.report = report

    def write(self, row: Mapping[str, Any]) -> None:
        """Takes one row of metrics."""
        if row.get("loss") is not None:
            self.report(int(row["step"]), float(row["loss"]))

    def close(self) -> None:
        """Nothing to close."""


def local_executor(workers: int | None = None, work=run_point) -> LocalExecutor:
    """Single-threaded workers, one a core, on a CPU; one worker on an accelerator."""
    import os

    accelerator = os.environ.get("JAX_PLATFORMS", "") not in ("", "cpu") or _has_accelerator()
    return LocalExecutor(work, workers or (1 if accelerator else len(cores())), pin=not accelerator)


def _has_accelerator() -> bool:
    """Whether jax would run on one. Looked up by file, as asking jax would take the device from the workers."""
    import importlib.util

    devices = [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("accel[0-9]*")]
    return bool(devices) and bool(importlib.util.find_spec("jax_cuda13_plugin") or importlib.util.find_spec("libtpu"))


def run_sweep(points: Sequence[Point], executor: Executor, board: Board) -> dict[str, str]:
    """Runs every unfinished point.

    Args:
      points: the points, finished ones included.
      executor: where they run; it is closed at the end.
      board: shows the progress.

    Returns:
      The message of each point that failed; the others have finished.
    """
    failures: dict[str, str] = {}
    with closing(executor), board:
        for p in points:
            board.add(p.name, p.run.steps, finished=p.finished)
            if not p.finished:
                executor.submit(p.job())
        for event in executor.events():
            note(event, board, failures)
    return failures


def sweep(found: Any, root: Path, *, dry_run: bool, part: str | None, workers: int | None) -> int:
    """What ``subquad sweep`` does: runs the points that are not finished, or lists them.

    Args:
      found: what the user's function returned.
      root: the sweep's directory.
      dry_run: only list the points and say how long they will take.
      part: ``i/n``, or None for all.
      workers: processes; None: one a core, or one on an accelerator.

    Returns:
      The exit status: 1 if a point failed, else 0.

    Raises:
      UserError: the sweep is not one, or the part is none.
    """
    from .report import points as shown

    points = shard(grid_points(found, root), part)
    executor = local_executor(workers)
    if dry_run:
        shown.plan(points, estimate(points, executor.workers))
        return 0
    failures = run_sweep(points, executor, Board())
    shown.show(points, root, failures)
    return 1 if failures else 0


def note(event: Event, board: Board, failures: dict[str, str]) -> None:
    """Shows an event, and keeps a failure's message."""
    board.show(event)
    if event.kind == "failed":
        failures[event.name] = event.message
