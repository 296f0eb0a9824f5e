"""What architectures cost: measured after training with nothing else running, taking turns in one process."""

import json
import statistics
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import PyTree

from ...archs.lm import LM
from ...kernels import dispatch
from ..config import RunConfig
from ..executor import Executor, Job, Report
from ..mesh import batch_sharding
from ..progress import Board
from ..rundir import write_json
from ..serialize import from_json, load_user_file, to_json, user_files
from ..step import program
from ..sweep import note
from ..timing import timed
from .cells import Cell
from .plan import Trial
from .study import Cost

ROUNDS = 5
"""Turns that each architecture takes; the median counts."""
COSTS = "costs.json"


def measure_all(found: Sequence[Cell], root: Path, executor: Executor, board: Board) -> dict[str, str]:
    """Measures every cell whose costs are not in the directory yet, in one worker.

    Returns:
      The message of the failure, if there was one.
    """
    failures: dict[str, str] = {}
    missing = [cell for cell in found if key(cell) not in read(root)]
    with closing(executor), board:
        if missing:
            runs = {key(cell): cell.point(Trial("fresh", cell.task.lrs[0], 0)).run for cell in missing}
            files = {name: file for run in runs.values() for name, file in user_files(run).items()}
            payload = ({name: to_json(run) for name, run in runs.items()}, files, str(root / COSTS))
            board.add("costs", len(runs))
            executor.submit(Job("costs", "costs", payload))
        for event in executor.events():
            note(event, board, failures)
    return failures


def key(cell: Cell) -> str:
    """A cell's name in ``costs.json``."""
    return f"{cell.task.name} {cell.dim} {cell.contestant.arch}"


def read(root: Path) -> dict[str, Cost]:
    """The costs measured so far, by cell."""
    path = root / COSTS
    if not path.is_file():
        return {}
    return {
        name: Cost(**(record | {"implementations": tuple(record["implementations"])}))
        for name, record in json.loads(path.read_text()).items()
    }


def measure(payload: tuple[dict[str, Any], dict[str, str], str], report: Report) -> None:
    """Measures runs and adds them to the file: what the worker process runs."""
    records, files, path = payload
    for file in files.values():
        load_user_file(file)
    runs: dict[str, RunConfig] = {name: from_json(record) for name, record in records.items()}
    measured = read(Path(path).parent)
    benches = {}
    for i, (name, run) in enumerate(runs.items()):
        benches[name] = Bench(run)
        report(i, float("nan"))
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in benches}
    for _ in range(ROUNDS):
        for name, bench in benches.items():
            times[name].append((timed(bench.train), timed(bench.decode)))
    for name, bench in benches.items():
        train, decode = (statistics.median(column) for column in zip(*times[name], strict=True))
        decode_ms = 1e3 * decode / bench.decoded
        measured[name] = Cost(bench.tokens / train, decode_ms, bench.peak / 1e6, bench.implementations)
    write_json(Path(path), {name: asdict(cost) for name, cost in measured.items()})


class Bench:
    """One architecture, compiled and warmed: a chunk of training steps, and decoding at batch 1."""

    def __init__(self, run: RunConfig):
        source = run.data.build()
        functions = program(run)
        self.lr = np.float32(run.optim.lr)
        batches = source.train(run.order, 0, run.chunk_steps, run.batch)
        self.batches = jax.device_put(batches, batch_sharding(functions.mesh, 1))
        self.tokens = batches.tokens.size
        self.state = functions.init(np.uint32(run.seed))
        with dispatch.recorded() as taken:
            self.chunk = functions.chunk.lower(self.state, self.batches, self.lr).compile()
        ops = [f"{op}: {impl}" for op, impl in sorted(taken.items())]
        self.implementations = tuple(ops) or ("jax.nn.dot_product_attention",)
        plan = self.chunk.memory_analysis()
        self.peak = plan.temp_size_in_bytes + plan.argument_size_in_bytes if plan else 0
        self.decoded = source.length
        self.graph = functions.graph
        self.model = jax.tree.map(jnp.copy, (self.state.params, self.state.constants))
        self.generate = jax.jit(self._generate).lower(*self.model).compile()
        timed(self.train)
        timed(self.decode)

    def train(self) -> Any:
        """A chunk of training steps."""
        self.state, metrics = self.chunk(self.state, self.batches, self.lr)
        return metrics

    def decode(self) -> Any:
        """Greedy decoding of as many tokens as a training row has."""
        return self.generate(*self.model)

    def _generate(self, params: PyTree, constants: PyTree) -> Any:
        lm: LM = nnx.merge(self.graph, params, constants)

        def step(carry, _):
            token, cache = carry
            logits, cache = lm.step(token, cache)
            return (logits.argmax(-1).astype(jnp.int32), cache), token

        return jax.lax.scan(step, (jnp.zeros(1, jnp.int32), lm.init_cache(1, self.decoded)), length=self.decoded)[1]
