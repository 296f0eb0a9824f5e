"""Several runs as one: lanes that differ in seed, learning rate and data order alone, vmapped on one accelerator."""

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .checkpoint import Checkpoints
from .config import RunConfig
from .data.base import Batch, Source
from .display import Display
from .errors import UserError, disk_errors
from .evaluate import evaluate_lanes
from .metrics import MetricsFile
from .rundir import Result, claim
from .step import program
from .train import Log, finish


def train_lanes(runs: Sequence[RunConfig], directories: Sequence[Path]) -> list[Result]:
    """Trains runs side by side; each gets the files that :func:`train` would have written.

    The figures are those of single runs but for rounding. A lane that diverges is frozen and the others go on. Lanes
    are not saved on the way: what is interrupted starts over, and runs that have finished are not run again.

    Args:
        runs: they may differ in ``seed``, ``data_seed`` and ``optim.lr``; all on one device, with ``save_every`` 0.
        directories: one for each.

    Returns:
        The results, in order.

    Raises:
        UserError: the runs do not fit together, or a directory is another run's.
    """
    source = runs[0].data.build()
    _check(runs)
    done = [claim(run, Path(d), source.sha256) for run, d in zip(runs, directories, strict=True)]
    missing = [i for i, result in enumerate(done) if result is None]
    if missing:
        fresh = _train([runs[i] for i in missing], [Path(directories[i]) for i in missing], source)
        done = [fresh.pop(0) if result is None else result for result in done]
    return [result for result in done if result is not None]


def _train(runs: list[RunConfig], directories: list[Path], source: Source) -> list[Result]:
    began, functions, run = time.monotonic(), program(runs[0]), runs[0]
    rates = np.array([r.optim.lr for r in runs], np.float32)
    with ExitStack() as stack:
        stack.enter_context(disk_errors(directories[0].parent))
        files = [stack.enter_context(closing(MetricsFile(d / "metrics.jsonl", 0))) for d in directories]
        logs = [Log(run, source.length, [file], Display(run.steps, progress=False)) for file in files]
        states = functions.init_lanes(np.array([r.seed for r in runs], np.uint32))
        validation, ended = {}, {}
        for start in range(0, run.steps, run.chunk_steps):
            started, step = time.perf_counter(), start + run.chunk_steps
            states, metrics = functions.chunk_lanes(states, _batches(runs, source, start), rates)
            metrics = jax.device_get(metrics)
            for i in [i for i in range(len(runs)) if i not in ended]:
                logs[i].chunk(start, _lane(metrics, i), time.perf_counter() - started)
                if step == run.steps or metrics.bad_run[i, -1] >= run.max_bad_steps:
                    ended[i] = _lane(states, i)
            if step == run.steps or (run.eval_every and step % run.eval_every == 0):
                for i, figures in enumerate(evaluate_lanes(functions, states, source, "validation", run.batch)):
                    if metrics.bad_run[i, -1] < run.max_bad_steps:
                        logs[i].evaluation(step, figures)
                        validation[i] = figures
            if len(ended) == len(runs):
                break
        test, results = evaluate_lanes(functions, states, source, "test", run.batch), []
        for i, directory in enumerate(directories):
            files[i].sync()
            with closing(Checkpoints(directory / "checkpoints")) as checkpoints:
                checkpoints.restore(functions.state)  # removes a model that a crash left without its result
                checkpoints.save(int(ended[i].step), ended[i], model_only=True)
            diverged = int(ended[i].bad_run) >= run.max_bad_steps
            figures = ({}, {}) if diverged else (validation[i], test[i])
            results.append(finish(runs[i], directory, ended[i], *figures, logs[i], time.monotonic() - began))
        return results


def _lane(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda x: x[i], tree)


def _batches(runs: list[RunConfig], source: Source, step: int) -> Batch:
    """The lanes' batches of the chunk from ``step`` on, ``[lanes, chunk, batch, T]``."""
    each = [source.train(run.order, step, run.chunk_steps, run.batch) for run in runs]
    return jax.device_put(jax.tree.map(lambda *x: np.stack(x), *each))


def _check(runs: Sequence[RunConfig]) -> None:
    alike = {replace(run, seed=0, data_seed=None, optim=replace(run.optim, lr=1.0)) for run in runs}
    if len(alike) > 1:
        raise UserError("lanes differ in seed, data_seed and optim.lr alone; run other points singly")
    if runs[0].devices > 1 or runs[0].save_every:
        raise UserError("lanes run on one device and save only at the end: set devices to 1 and save_every to 0")
