"""Kills a training run at random instants, restarts it each time, and compares it with one that was left alone.

``python -m subquad.experiments.kill_test`` prints a table and exits with status 1 unless losses, gradient norms and all
final arrays are equal bit for bit. To see that it can fail, change any seed between the runs.
"""

import contextlib
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ..archs.config import LMConfig
from ..layers import GatedDeltaNetConfig
from .checkpoint import Checkpoints
from .config import OptimConfig, RunConfig
from .data.mqar import MQARConfig
from .metrics import read_metrics
from .serialize import from_json, to_json
from .step import program
from .train import train
from .tree import flatten


@dataclass
class Outcome:
    """What was done to a run, and what came of it."""

    kills: Counter[str] = field(default_factory=Counter)
    """By what the run was doing: ``"before a checkpoint"``, ``"between saves"`` or ``"in a save"``."""
    completed: int = 0
    differing: list[str] = field(default_factory=list)
    """What was not equal to the run left alone, of each completed run."""


def example(steps: int = 600) -> RunConfig:
    """A small run whose saves are dense enough to be hit."""
    model = LMConfig(vocab=64, dim=32, depth=2, pattern=(GatedDeltaNetConfig(head_dim=32),), embed_std=0.3)
    optim = OptimConfig(lr=1e-2)
    return RunConfig(model, MQARConfig(), optim, steps=steps, save_every=20, eval_every=100, keep_every=200)


def kill_test(run: RunConfig, root: Path, *, kills: int, in_saves: int, seed: int = 0) -> Outcome:
    """Trains ``run`` once undisturbed, then again and again under kills until there were enough.

    Args:
        run: what to train; it has to save.
        root: an empty directory for all the runs.
        kills: how many kills there are at least.
        in_saves: how many of them come while a checkpoint is being written.
        seed: draws the instants: uniform over the time that the undisturbed run took.
    """
    draw, outcome = random.Random(seed), Outcome()
    assert _start(run, root / "alone").wait() == 0, "the undisturbed run failed"
    duration = _seconds(root / "alone")
    want = fingerprint(run, root / "alone")
    while outcome.kills.total() < kills or outcome.kills["in a save"] < in_saves:
        directory = root / f"killed{outcome.completed}"
        while True:
            left = _parts(directory)
            aim = outcome.kills["in a save"] < in_saves and draw.random() < 0.5
            if _finished(_start(run, directory), directory, left, None if aim else draw.uniform(0, duration)):
                break
            outcome.kills[_phase(directory, left)] += 1
        outcome.completed += 1
        duration = min(duration, 2 * _seconds(directory))  # the machine may be less busy than it was at first
        got = fingerprint(run, directory)
        outcome.differing += [f"{directory.name}: {name}" for name in want if got[name] != want[name]]
    return outcome


def fingerprint(run: RunConfig, directory: Path) -> dict[str, str]:
    """SHA-256 of a finished run's losses, its gradient norms, its evaluations, and each final array, by name."""
    rows = list(read_metrics(directory / "metrics.jsonl"))
    series = {name: [row[name] for row in rows if name in row] for name in ("loss", "grad_norm", "validation_loss")}
    assert [row["step"] for row in rows if "loss" in row] == [*range(1, run.steps + 1)], f"rows of {directory}"
    state = Checkpoints(directory / "checkpoints", read_only=True).restore(program(run).state)
    assert state is not None, f"no final checkpoint in {directory}"
    arrays = {name: np.asarray(leaf).tobytes() for name, leaf in flatten(state).items()}
    texts = {name: json.dumps(values).encode() for name, values in series.items()}
    return {name: hashlib.sha256(data).hexdigest() for name, data in (texts | arrays).items()}


def _start(run: RunConfig, directory: Path) -> subprocess.Popen:
    code = [sys.executable, "-m", "subquad.experiments.kill_test", json.dumps(to_json(run)), str(directory)]
    return subprocess.Popen(code, stdout=subprocess.DEVNULL)


def _finished(process: subprocess.Popen, directory: Path, left: set, seconds: float | None) -> bool:
    """Kills the process after some seconds, or (None) as it saves; returns whether it had finished before that."""
    deadline = time.monotonic() + (seconds or 0)
    while process.poll() is None:
        if _parts(directory) - left if seconds is None else time.monotonic() >= deadline:
            process.kill()
            process.wait()
            return (directory / "result.json").exists()
        time.sleep(0.001)
    assert process.returncode == 0, f"the run failed with status {process.returncode}"
    return True


def _parts(directory: Path) -> set[tuple[str, int]]:
    """The checkpoints being written, and those that a kill left half-written, with the time they changed."""
    found = set()
    for path in directory.glob("checkpoints/*orbax-checkpoint-tmp*"):
        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile: complete
            found.add((path.name, path.stat().st_ctime_ns))
    return found


def _seconds(directory: Path) -> float:
    """What the process that finished a run took, with some for its start."""
    return 3 + json.loads((directory / "result.json").read_text())["seconds"]


def _phase(directory: Path, left: set) -> str:
    if _parts(directory) - left:
        return "in a save"
    saved = [path for path in directory.glob("checkpoints/*") if path.name.isdigit()]
    return "between saves" if saved else "before a checkpoint"


def main() -> None:
    """Runs the test in a temporary directory and prints what came out; with arguments, is the process to be killed."""
    if len(sys.argv) > 1:
        train(from_json(json.loads(sys.argv[1])), Path(sys.argv[2]), progress=False)
        return
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        outcome = kill_test(example(), Path(root), kills=20, in_saves=5)
    table = Table("", "count")
    for phase, count in sorted(outcome.kills.items()):
        table.add_row(f"killed {phase}", str(count))
    table.add_row("kills", str(outcome.kills.total()))
    table.add_row("runs completed under kills", str(outcome.completed))
    table.add_row("of these, different in any bit", str(len({line.split(":")[0] for line in outcome.differing})))
    console = Console()
    console.print(table, *outcome.differing, f"{time.monotonic() - began:.0f} s", sep="\n")
    sys.exit(bool(outcome.differing))


if __name__ == "__main__":
    main()
