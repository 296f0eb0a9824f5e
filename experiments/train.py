"""Training: one run, from its configuration to its result, through any number of interruptions."""

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from ..archs.lm import LM
from .checkpoint import Checkpoints
from .config import RunConfig
from .data.base import Batch, Source, Split
from .display import Display
from .evaluate import evaluate
from .interrupt import Interrupts
from .mesh import batch_sharding
from .metrics import MetricsFile, Row, Sink, read_metrics
from .rundir import Result, claim, disk_errors, read_run, write_result
from .step import Metrics, Program, State, program
from .utilisation import utilisation


def train(run: RunConfig, directory: Path, *, sinks: Sequence[Sink] = (), progress: bool = True) -> Result:
    """Trains a model, or goes on where an earlier call in the same directory stopped, however it stopped.

    On a CPU the numbers are then bit for bit those of a run that never stopped.

    Args:
        run: what to train.
        directory: receives ``run.json``, ``metrics.jsonl``, ``checkpoints/`` and, at the end, ``result.json``.
        sinks: shown each row of metrics.
        progress: whether to show a progress bar.

    Returns:
        The result; at once if the run has finished before.

    Raises:
        UserError: a mistake that the user can mend.
        SystemExit: Ctrl-C (130) or SIGTERM (143) came; everything is saved.
    """
    began, directory = time.monotonic(), Path(directory)
    source = run.data.build()
    if (done := claim(run, directory, source.sha256)) is not None:
        return done

    functions, chunk = program(run), run.chunk_steps
    with ExitStack() as stack:
        stack.enter_context(disk_errors(directory))
        interrupts = stack.enter_context(Interrupts())
        display = stack.enter_context(Display(run.steps, progress=progress))
        checkpoints = Checkpoints(directory / "checkpoints", run.keep_last, run.keep_every, say=display.say)
        stack.callback(checkpoints.close)
        state = checkpoints.restore(functions.state)
        if state is None:
            state = functions.init(np.uint32(run.seed))
        step = int(state.step)
        display.resume(step)
        file = stack.enter_context(closing(MetricsFile(directory / "metrics.jsonl", step)))
        log = Log(run, source.length, [file, *(stack.enter_context(closing(sink)) for sink in sinks)], display)

        validation, diverged = {}, int(state.bad_run) >= run.max_bad_steps
        batches = _batches(run, source, functions, step)
        while batches is not None and not diverged and interrupts.signal is None:
            started = time.perf_counter()
            state, metrics = functions.chunk(state, batches, np.float32(run.optim.lr))
            batches = _batches(run, source, functions, step + chunk)  # made while the device computes
            metrics = jax.device_get(metrics)
            log.chunk(step, metrics, time.perf_counter() - started)
            step += chunk
            diverged = int(metrics.bad_run[-1]) >= run.max_bad_steps
            last = diverged or step == run.steps
            if not diverged and (last or _due(step, run.eval_every)):
                validation = evaluate(functions, state, source, "validation", run.batch)
                log.evaluation(step, validation)
            if last or _due(step, run.save_every) or interrupts.signal is not None:
                file.sync()  # so that no checkpoint is ahead of the metrics
                checkpoints.save(step, state, model_only=last and not run.save_every)

        if interrupts.signal is not None and step < run.steps and not diverged:
            checkpoints.wait()
            display.say(f"stopped at step {step} of {run.steps}; run the same command to continue")
            raise SystemExit(128 + interrupts.signal)
        if diverged:
            display.say(
                f"diverged: {run.max_bad_steps} steps in a row were not finite, up to step {step}; the parameters are "
                "those before them; lower optim.lr, or raise optim.warmup"
            )
        figures = ({}, {})
        if not diverged:
            validation = validation or evaluate(functions, state, source, "validation", run.batch)
            figures = (validation, evaluate(functions, state, source, "test", run.batch))
        checkpoints.wait()
        return finish(run, directory, state, *figures, log, time.monotonic() - began)


def finish(
    run: RunConfig, directory: Path, state: State, validation: dict[str, float], test: dict[str, float], log: "Log",
    seconds: float,
) -> Result:  # fmt: skip
    """Writes the result of a run whose metrics and model are on disk: from then on it counts as finished."""
    result = Result(
        steps=int(state.step), loss=_last_loss(directory / "metrics.jsonl", run.chunk_steps), validation=validation,
        test=test, bad_steps=int(state.bad_steps), diverged=int(state.bad_run) >= run.max_bad_steps,
        tokens_per_s=log.tokens_per_s, utilisation=log.utilisation, seconds=seconds,
    )  # fmt: skip
    write_result(directory, result)
    return result


def load_run(directory: Path) -> tuple[RunConfig, LM]:
    """The configuration of a run and its model, from the newest checkpoint that can be read.

    Raises:
        UserError: it is not a run directory, or it holds no model yet.
    """
    run, functions, state = _load(directory)
    return run, nnx.merge(functions.graph, state.params, state.constants)


def evaluate_run(directory: Path, split: Split) -> dict[str, float]:
    """Evaluates the model of a run anew: ``{"loss": ..., metric: ...}``.

    Raises:
        UserError: it is not a run directory, or it holds no model yet.
    """
    run, functions, state = _load(directory)
    return evaluate(functions, state, run.data.build(), split, run.batch)


@dataclass
class Log:
    """Hands the figures of each chunk to the metrics file, the sinks and the display, and keeps the time."""

    run: RunConfig
    length: int
    sinks: list[Sink]
    display: Display
    _seconds: list[float] = field(default_factory=list)

    @property
    def tokens_per_s(self) -> float | None:
        """Over the chunks so far, but for the first, which may compile; None before any."""
        seconds = self._seconds[1:] or self._seconds
        return self._rate(sum(seconds) / len(seconds)) if seconds else None

    @property
    def utilisation(self) -> float | None:
        """Model-FLOPs utilisation at that rate, on accelerators whose peak is known."""
        rate, kind = self.tokens_per_s, jax.devices()[0].device_kind
        return None if rate is None else utilisation(self.run, self.length, rate, kind)

    def chunk(self, step: int, metrics: Metrics, seconds: float) -> None:
        """Writes a row for each step after ``step``."""
        self._seconds.append(seconds)
        rate = self._rate(seconds)
        for i in range(len(metrics.loss)):
            row = {"step": step + i + 1, "loss": float(metrics.loss[i]), "grad_norm": float(metrics.grad_norm[i])}
            row |= {"lr": float(metrics.lr[i]), "bad_steps": int(metrics.bad_steps[i]), "tokens_per_s": round(rate, 1)}
            self.write(row)
        self.display.show(step + len(metrics.loss), float(metrics.loss[-1]), rate, self.utilisation)

    def evaluation(self, step: int, validation: dict[str, float]) -> None:
        """Writes a row of figures on the validation split."""
        self.write({"step": step} | {f"validation_{name}": value for name, value in validation.items()})

    def write(self, row: Row) -> None:
        """Writes one row."""
        for sink in self.sinks:
            sink.write(row)

    def _rate(self, seconds: float) -> float:
        return self.run.chunk_steps * self.run.batch * self.length / seconds


def _batches(run: RunConfig, source: Source, functions: Program, step: int) -> Batch | None:
    """The batches of the chunk from ``step`` on, where they are needed; None past the end."""
    if step >= run.steps:
        return None
    batches = source.train(run.order, step, run.chunk_steps, run.batch)
    return jax.device_put(batches, batch_sharding(functions.mesh, 1))


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _last_loss(path: Path, chunk: int) -> float | None:
    """The mean of the last chunk's losses; None if one of them is not finite."""
    losses = [row["loss"] for row in read_metrics(path) if "loss" in row][-chunk:]
    return None if None in losses else float(np.mean(losses))


def _load(directory: Path) -> tuple[RunConfig, Program, State]:
    run = read_run(Path(directory))
    functions = program(replace(run, devices=1))
    checkpoints = Checkpoints(Path(directory) / "checkpoints", read_only=True)
    return run, functions, checkpoints.restore_model(functions.state)
