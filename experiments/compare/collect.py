"""Reads a comparison's directories into a ``Study``: what every report is made from."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..metrics import read_metrics
from ..serialize import to_json
from ..sweep import Point
from . import costs, fairness
from .cells import Cell, cells, groups, validation_loss
from .plan import Trial
from .run import read
from .settings import Expectation, Task
from .study import METRICS, Curve, Entry, Outcome, Study, Table


def collect(root: Path, seconds: float | None = None, failures: dict[str, str] | None = None) -> Study:
    """The study of a comparison's directory.

    Args:
      root: the comparison's directory.
      seconds: the wall time, if one command ran it from start to end.
      failures: the message of each point that failed.

    Returns:
      Everything that has finished so far.

    Raises:
      UserError: the directory holds no comparison.
    """
    comparison, record = read(root)
    found = cells(comparison, root)
    measured = costs.read(root)
    tables, records = [], []
    for task, dim, group in groups(found):
        data = record["data"][task.name]
        entries, points = [], []
        for cell in group:
            made, ran = entry(cell, data, measured)
            entries.append(made)
            points.append(ran)
        records += [json.loads((p.directory / "run.json").read_text()) for ran in points for p in ran.values()]
        tables.append(table(task, dim, group, entries, points, data))
    versions = records[0]["versions"] if records else {}
    revision = (records[0].get("git") or {}).get("commit") if records else None
    host = f"{records[0]['device']['kind']}, {records[0]['platform']}" if records else ""
    versions |= {"git": revision[:12]} if revision else {}
    return Study(comparison.name, tuple(tables), record["command"], versions, host, seconds, failures or {})


def entry(cell: Cell, data: dict[str, Any], measured: dict[str, costs.Cost]) -> tuple[Entry, dict[Trial, Point]]:
    """What came out of a cell, and the runs that it came from."""
    _, choice, finished = cell.progress()
    scores: dict[float, list[float]] = {}
    fresh: dict[int, float] = {}
    diverged: list[int] = []
    curves: dict[int, Curve] = {}
    for trial, p in sorted(finished.items()):
        if trial.stage == "select":
            scores.setdefault(trial.lr, []).append(validation_loss(p))
            continue
        result = p.result()
        figure = result["test"].get(data["metric"])
        if result["diverged"] or figure is None:
            diverged.append(trial.seed)
            figure = METRICS[data["metric"]][2]
        fresh[trial.seed] = figure
        curves[trial.seed] = curve(p.directory / "metrics.jsonl")
    made = Entry(
        cell.contestant.arch,
        cell.contestant.parameters,
        cell.model.state_bytes(data["evaluation_length"]),
        cell.contestant.overrides,
        to_json(cell.model),
        choice.lr if choice else None,
        bool(choice and choice.at_edge),
        scores,
        fresh,
        tuple(diverged),
        curves,
        measured.get(costs.key(cell)),
    )
    return made, finished


def curve(path: Path) -> Curve:
    """The training losses that are finite."""
    rows = [row for row in read_metrics(path) if row.get("loss") is not None]
    return Curve([row["step"] for row in rows], [row["loss"] for row in rows])


def table(
    task: Task, dim: int, group: Sequence[Cell], entries: Sequence[Entry], points: Sequence[dict[Trial, Point]],
    data: dict[str, Any],
) -> Table:  # fmt: skip
    """One task at one width, with its rules checked and its expectations met or missed."""
    runs = [[p.run for p in ran.values()] for ran in points]
    shas = {json.loads((p.directory / "run.json").read_text())["data_sha256"] for ran in points for p in ran.values()}
    if len(shas | {data["sha256"]}) > 1:
        raise UserError(f"the runs of {task.name} were on different data: their figures cannot stand in one table")
    baselines, evaluated = data["baselines"], data["evaluated"]
    worst, best = max, min
    if METRICS[data["metric"]][1]:
        worst, best = min, max
    strongest = best(baselines.values()) if baselines else worst(0.0, METRICS[data["metric"]][2])
    longer = f", in rows of {n}" if (n := data["evaluation_length"]) != data["length"] else ""
    found = Table(
        task.name,
        dim,
        data["metric"],
        data["sha256"],
        f"{task.steps:,} steps of {task.batch} sequences of {data['length']} tokens; depth {task.depth}, {task.heads} "
        f"{'head' if task.heads == 1 else 'heads'}, {'channel mixers' if task.mlp else 'no channel mixers'}; "
        f"tested on {evaluated:,} {'bytes' if data['metric'] == 'bits_per_byte' else 'queries'}{longer}.",
        baselines,
        strongest if task.solved is None else task.solved,
        tuple(entries),
    )
    contestants = [cell.contestant for cell in group]
    checks = fairness.checks(task, entries, contestants, runs, data["metric"], evaluated, data["sha256"])
    expected = tuple(outcome for e in task.expectations if (outcome := met(e, found)) is not None)
    return Table(**(vars(found) | {"checks": checks, "expected": expected}))


def met(expectation: Expectation, found: Table) -> Outcome | None:
    """Whether an expectation came out; None where the architecture does not take part.

    An architecture without figures misses it.
    """
    entries = [entry for entry in found.entries if expectation.arch in ("*", entry.arch)]
    if not entries:
        return None
    name = "every architecture" if expectation.arch == "*" else expectation.arch
    means = {entry.arch: entry.interval.mean for entry in entries}
    if expectation.at_least is not None:
        bound, higher, text = expectation.at_least, True, f"at least {expectation.at_least:g}"
    elif expectation.at_most is not None:
        bound, higher, text = expectation.at_most, False, f"at most {expectation.at_most:g}"
    else:
        assert expectation.beats is not None
        bound, higher = found.baselines[expectation.beats], found.higher_is_better
        text = f"better than the {expectation.beats} baseline, {bound:.3f}"
    good = {arch: (mean >= bound if higher else mean <= bound) for arch, mean in means.items()}
    if expectation.arch == "*":
        missed = [f"{arch} {means[arch]:.3f}" for arch, ok in good.items() if not ok]
        worst = min(means.values()) if higher else max(means.values())
        got = f"not {', '.join(missed)}" if missed else f"the last has {worst:.3f}"
    else:
        got = f"{means[expectation.arch]:.3f}" if not math.isnan(means[expectation.arch]) else "nothing"
    return Outcome(f"{name} {text}", all(good.values()), got)
