"""Sweeps and the executor: with a fake training, so that what is tested is who runs what, once."""

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_work import fake_work
from rich.console import Console
from subquad.archs import LMConfig
from subquad.experiments import sweep
from subquad.experiments.config import OptimConfig, RunConfig
from subquad.experiments.data import MQARConfig
from subquad.experiments.errors import UserError
from subquad.experiments.executor import Event, Job, LocalExecutor
from subquad.experiments.progress import Board, duration
from subquad.layers import MinGRUConfig

RUN = RunConfig(LMConfig(64, 32, 2, (MinGRUConfig(),)), MQARConfig(rows=4), OptimConfig(lr=0.01), steps=10, batch=4)


def quiet():
    return Board(Console(file=io.StringIO(), force_terminal=False))


@dataclass
class FakeExecutor:
    """Finishes every job at once, in this process."""

    work: object

    def __post_init__(self):
        self.jobs, self.ran, self.closed = [], [], False

    def submit(self, job):
        self.jobs.append(job)

    def events(self):
        while self.jobs:
            job = self.jobs.pop(0)
            self.ran.append(job.name)
            yield Event("started", job.name)
            yield self.work(job)

    def close(self):
        self.closed = True


def finishing(job):
    directory = Path(job.payload[2])
    directory.mkdir(parents=True)
    (directory / "result.json").write_text(json.dumps({"seconds": 2.0}))
    return Event("finished", job.name)


def grid():
    return {
        f"lr{lr}": replace(RUN, optim=OptimConfig(lr=lr), seed=seed) for seed, lr in enumerate((0.1, 0.2, 0.3, 0.4))
    }


def test_workers_run_everything_on_single_cores(tmp_path):
    executor = LocalExecutor(fake_work, 2)
    for i in range(6):
        executor.submit(Job(f"p{i}", "ab"[i % 2], ("ok", str(tmp_path / "out"))))
    events = list(executor.events())
    executor.close()
    assert sorted(e.name for e in events if e.kind == "finished") == [f"p{i}" for i in range(6)]
    assert [e.loss for e in events if e.kind == "progress"] == [0.5] * 6
    cores = [json.loads(line)[1] for line in (tmp_path / "out").read_text().splitlines()]
    assert all(len(own) == 1 for own in cores), f"a worker may use several cores: {cores}"


def test_a_worker_keeps_to_its_group_then_takes_a_free_one_then_helps_out():
    executor = LocalExecutor(fake_work, 2)
    for name in ("a0", "a1", "b0", "c0", "c1"):
        executor.submit(Job(name, name[0], None))
    busy = SimpleNamespace(job=Job("b9", "b", None), group="b")
    executor._pool.append(busy)
    assert executor._next("c").name == "c0", "its own group first"
    assert executor._next("").name == "a0", "then the oldest group that nobody works on"
    assert executor._next("a").name == "a1"
    assert executor._next("a").name == "c1"
    assert executor._next("a").name == "b0", "at last, what waits behind a busy worker"
    assert executor._next("a") is None


def test_a_failure_and_a_crash_fail_their_points_alone(tmp_path):
    executor = LocalExecutor(fake_work, 1)
    jobs = [("raise", "no such thing"), ("die", 3), ("ok", str(tmp_path / "out"))]
    for i, payload in enumerate(jobs):
        executor.submit(Job(f"p{i}", "g", payload))
    ends = {e.name: e for e in executor.events() if e.kind in ("finished", "failed")}
    executor.close()
    assert ends["p0"].kind == "failed"
    assert "no such thing" in ends["p0"].message
    assert ends["p1"].kind == "failed"
    assert "exit status 3" in ends["p1"].message
    assert ends["p2"].kind == "finished"


def test_work_may_be_added_while_events_are_read(tmp_path):
    executor = LocalExecutor(fake_work, 1)
    executor.submit(Job("first", "g", ("ok", str(tmp_path / "out"))))
    names = []
    for event in executor.events():
        if event.kind == "finished":
            names.append(event.name)
            if len(names) < 3:
                executor.submit(Job(f"then{len(names)}", "g", ("ok", str(tmp_path / "out"))))
    executor.close()
    assert names == ["first", "then1", "then2"]


def test_finished_points_are_never_run_twice(tmp_path):
    points = sweep.grid_points(grid(), tmp_path)
    first = FakeExecutor(finishing)
    assert sweep.run_sweep(points[:3], first, quiet()) == {}
    again = FakeExecutor(finishing)
    sweep.run_sweep(sweep.grid_points(grid(), tmp_path), again, quiet())
    assert first.ran == [p.name for p in points[:3]]
    assert again.ran == [points[3].name]
    assert first.closed


def test_points_are_named_by_name_and_configuration(tmp_path):
    a, b = (sweep.point("x y", run, tmp_path) for run in (RUN, replace(RUN, steps=11)))
    assert a.name.startswith("x-y-")
    assert a.name != b.name
    assert a.name == sweep.point("x y", replace(RUN), tmp_path).name


def test_one_executable_for_learning_rates_and_seeds():
    same = replace(RUN, optim=replace(RUN.optim, lr=0.5), seed=3, data_seed=9)
    assert sweep.executable(same) == sweep.executable(RUN)
    assert sweep.executable(replace(RUN, steps=11)) != sweep.executable(RUN)
    assert sweep.executable(replace(RUN, optim=replace(RUN.optim, clip=2.0))) != sweep.executable(RUN)


@pytest.mark.parametrize("found", [None, "text", [1], [], {}, {"a": RUN, "b": RUN}, [RUN, RUN]])
def test_what_is_no_sweep_is_a_user_error(found, tmp_path):
    with pytest.raises(UserError):
        sweep.grid_points(found, tmp_path)


def test_shards_cover_everything_once(tmp_path):
    points = sweep.grid_points(grid(), tmp_path)
    parts = [sweep.shard(points, f"{i}/3") for i in (1, 2, 3)]
    assert sorted(p.name for part in parts for p in part) == sorted(p.name for p in points)
    for bad in ("0/3", "4/3", "1", "a/b", "1/0"):
        with pytest.raises(UserError, match="i/n"):
            sweep.shard(points, bad)


def test_estimate_says_where_it_comes_from(tmp_path):
    points = sweep.grid_points(grid(), tmp_path)
    flops = sweep.training_flops(RUN)
    assert flops == 3 * RUN.model.flops_per_token(32) * 10 * 4 * 32
    guess = sweep.estimate(points, 2)
    assert guess.seconds == pytest.approx(4 * flops / sweep.FLOPS_PER_WORKER / 2)
    assert "FLOPs" in guess.source
    finishing(points[0].job())
    measured = sweep.estimate(points, 1)
    assert measured.seconds == pytest.approx(3 * 2.0)
    assert "measured on 1" in measured.source


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")]
)
def test_durations_read_well(seconds, text):
    assert duration(float(seconds)) == text
