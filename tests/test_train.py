"""Training end to end: what it writes, how it stops and goes on, what it refuses."""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from subquad.experiments.errors import UserError
from subquad.experiments.metrics import MetricsFile, TensorBoard, read_metrics
from subquad.experiments.rundir import Result
from subquad.experiments.step import program
from subquad.experiments.train import evaluate_run, load_run, train
from subquad.experiments.tree import flatten
from toy import HYBRID, toy_run


class At:
    """A sink that does something when a step's row comes, and keeps the rows."""

    def __init__(self, step: int = -1, act=lambda: None):
        self.step, self.act, self.rows, self.closed = step, act, [], 0

    def write(self, row) -> None:
        self.rows.append(dict(row))
        if row["step"] == self.step:
            self.act()

    def close(self) -> None:
        self.closed += 1


def figures(directory: Path) -> list[dict]:
    """The rows without what depends on the clock."""
    return [{k: v for k, v in row.items() if k != "tokens_per_s"} for row in read_metrics(directory / "metrics.jsonl")]


def same_but_for_time(a: Result, b: Result) -> bool:
    clock = {"tokens_per_s": None, "seconds": 0.0}
    return dataclasses.replace(a, **clock) == dataclasses.replace(b, **clock)


def test_a_run_learns_and_writes_it_down(tmp_path):
    run, sink = toy_run(eval_every=20), At()
    result = train(run, tmp_path, sinks=[sink], progress=False)
    rows = list(read_metrics(tmp_path / "metrics.jsonl"))
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert list(losses) == list(range(1, 41))
    assert losses[40] < 0.5 * losses[1]
    assert result.loss == np.mean([losses[step] for step in range(36, 41)])
    assert [row["step"] for row in rows if "validation_loss" in row] == [20, 40]
    assert result.validation == {k.removeprefix("validation_"): v for k, v in rows[-1].items() if k != "step"}
    assert result.validation != result.test
    assert sink.rows == rows
    assert sink.closed == 1
    assert json.loads((tmp_path / "result.json").read_text()) == dataclasses.asdict(result)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["data_sha256"] == run.data.build().sha256
    assert {"jax", "flax", "subquad", "python"} <= set(record["versions"])
    again, model = load_run(tmp_path)
    assert again == run
    assert model.config == run.model
    assert evaluate_run(tmp_path, "test") == result.test
    assert train(run, tmp_path, sinks=[sink], progress=False) == result
    assert sink.rows == rows, "a finished run was run again"


@pytest.mark.parametrize("save_every", [0, 10])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(tmp_path, capsys, save_every, number):
    """Stopped twice, once between saves; the second time a later row and half a line are left behind as well."""
    run = toy_run(eval_every=20, save_every=save_every)
    alone = train(run, tmp_path / "alone", progress=False)
    directory = tmp_path / "stopped"
    handler = signal.getsignal(number)
    for step, stop in ((3, 5), (26, 30)):
        with pytest.raises(SystemExit) as stopped:
            train(run, directory, sinks=[At(step, lambda: os.kill(os.getpid(), number))], progress=False)
        assert stopped.value.code == 128 + number
        assert f"stopped at step {stop} of 40; run the same command to continue" in capsys.readouterr().err
        assert signal.getsignal(number) is handler
    with (directory / "metrics.jsonl").open("a") as file:
        file.write('{"step": 31, "loss": 1.0}\n{"step": 32, "lo')
    sink = At()
    result = train(run, directory, sinks=[sink], progress=False)
    assert sink.rows[0]["step"] == 31
    assert figures(directory) == figures(tmp_path / "alone")
    assert same_but_for_time(result, alone)
    want = flatten(load_run(tmp_path / "alone")[1])
    for name, leaf in flatten(load_run(directory)[1]).items():
        np.testing.assert_array_equal(leaf, want[name], err_msg=name)


def test_a_reversible_run_is_stopped_and_goes_on(tmp_path):
    run = toy_run(save_every=10, model={"residual": "reversible", "pattern": HYBRID, "tied": False})
    alone = train(run, tmp_path / "alone", progress=False)
    with pytest.raises(SystemExit):
        train(run, tmp_path / "stopped", sinks=[At(13, lambda: os.kill(os.getpid(), signal.SIGINT))], progress=False)
    assert same_but_for_time(train(run, tmp_path / "stopped", progress=False), alone)
    assert figures(tmp_path / "stopped") == figures(tmp_path / "alone")
    assert alone.validation["loss"] < 0.9 * np.log(32), "it has learnt nothing"


def test_a_corrupt_checkpoint_costs_the_steps_since_the_one_before(tmp_path, capsys):
    run = toy_run(save_every=10)
    train(run, tmp_path / "alone", progress=False)
    with pytest.raises(SystemExit):
        train(run, tmp_path / "hurt", sinks=[At(26, lambda: os.kill(os.getpid(), signal.SIGINT))], progress=False)
    for file in (tmp_path / "hurt" / "checkpoints" / "30").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:7])
    sink = At()
    train(run, tmp_path / "hurt", sinks=[sink], progress=False)
    assert "checkpoint 30 cannot be read" in capsys.readouterr().err
    assert sink.rows[0]["step"] == 21
    assert figures(tmp_path / "hurt") == figures(tmp_path / "alone")


def test_a_crash_before_the_result_is_written(tmp_path):
    run = toy_run(save_every=20)
    want = train(run, tmp_path, progress=False)
    rows = figures(tmp_path)
    (tmp_path / "result.json").unlink()
    assert same_but_for_time(train(run, tmp_path, progress=False), want)
    assert figures(tmp_path) == rows


def test_a_diverged_state_stays_what_it_was():
    """Finite steps after too many bad ones, in one chunk, change nothing any more."""
    run = toy_run(max_bad_steps=2, data={"poison": (1, 2)})
    functions = program(run)
    batches = run.data.build().train(0, 0, 5, run.batch)
    state, metrics = functions.chunk(functions.init(np.uint32(0)), batches, np.float32(1e-2))
    assert np.asarray(metrics.bad_run).tolist() == [0, 1, 2, 3, 4]
    assert int(state.optimizer[1].count) == 1


def test_divergence_ends_a_run_with_a_result(tmp_path, capsys):
    """Steps 7 to 9 are skipped, 20 on are too many; the parameters are the last finite ones."""
    run = toy_run(max_bad_steps=4, data={"poison": (7, 8, 9, *range(20, 40))}, save_every=10, eval_every=10)
    result = train(run, tmp_path, progress=False)
    assert (result.diverged, result.steps, result.bad_steps) == (True, 25, 8)
    assert (result.loss, result.validation, result.test) == (None, {}, {})
    assert "diverged: 4 steps in a row were not finite" in capsys.readouterr().err
    rows = {row["step"]: row for row in read_metrics(tmp_path / "metrics.jsonl") if "loss" in row}
    assert [rows[step]["loss"] is None for step in (7, 8, 10, 11, 20, 21)] == [False, True, True, False, False, True]
    assert [rows[step]["bad_steps"] for step in (7, 10, 20, 21)] == [0, 3, 3, 4]
    assert all(np.isfinite(leaf).all() for leaf in flatten(load_run(tmp_path)[1]).values())
    assert train(run, tmp_path, progress=False) == result


def test_a_directory_of_another_run(tmp_path):
    train(toy_run(), tmp_path, progress=False)
    with pytest.raises(UserError, match=r"belongs to another run: its optim\.lr is 0\.01, not 0\.02"):
        train(toy_run(optim={"lr": 0.02}), tmp_path, progress=False)
    with pytest.raises(UserError, match=r"its model\.pattern\.0\.head_dim is 16, not 8"):
        train(toy_run(model={"pattern": (dataclasses.replace(toy_run().model.pattern[0], head_dim=8),)}), tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record | {"data_sha256": "0"}))
    with pytest.raises(UserError, match="was begun on other data"):
        train(toy_run(), tmp_path, progress=False)
    assert train(toy_run(devices=1), tmp_path / "new", progress=False).steps == 40
    assert train(toy_run(devices=4), tmp_path / "new", progress=False).steps == 40


def test_a_directory_that_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/run cannot be written"):
        train(toy_run(), tmp_path / "file" / "run", progress=False)
    with pytest.raises(UserError, match=r"is not a run directory: it has no run\.json"):
        load_run(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"without a run\.json"):
        train(toy_run(), tmp_path, progress=False)
    (tmp_path / "run.json").write_text('{"con')
    with pytest.raises(UserError, match="is not readable as JSON"):
        train(toy_run(), tmp_path, progress=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk(tmp_path, monkeypatch):
    full = Path("/dev/full").open("a")  # noqa: SIM115
    monkeypatch.setattr(MetricsFile, "__init__", lambda self, *_: setattr(self, "_file", full))
    with pytest.raises(UserError, match=r"no space is left for .* run the same command again"):
        train(toy_run(save_every=10), tmp_path, progress=False)
    assert not (tmp_path / "result.json").exists()


def test_more_devices_than_there_are(tmp_path):
    with pytest.raises(UserError, match="devices = 16, but this machine has 8"):
        train(toy_run(devices=16, batch=16), tmp_path, progress=False)


def test_torn_and_later_rows_are_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    whole = '{"step": 1, "loss": 2.5}\n{"step": 2, "loss": null}\n'
    for rest, step, want in (
        ('{"step": 3, "loss": 1.0}\n', 2, whole), ('{"step": 2, "lo', 2, whole), ("\x00\x00", 9, whole), ("", 0, ""),
    ):  # fmt: skip
        path.write_text(whole + rest)
        MetricsFile(path, step).close()
        assert path.read_text() == want
    file = MetricsFile(path, 0)
    file.write({"step": 1, "loss": float("nan"), "grad_norm": float("inf"), "lr": 0.1})
    file.close()
    assert list(read_metrics(path)) == [{"step": 1, "loss": None, "grad_norm": None, "lr": 0.1}]


def test_tensorboard_without_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"pip install 'subquad\[tensorboard\]'"):
        TensorBoard(tmp_path)


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    sink = TensorBoard(tmp_path)
    sink.write({"step": 3, "loss": 1.5})
    sink.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss" in file.read_bytes()


def test_runs_of_one_shape_share_a_program():
    assert program(toy_run()) is program(toy_run(seed=3, optim={"lr": 1.0}, save_every=10, data={"vocab": 16}))
    assert program(toy_run()) is not program(toy_run(optim={"clip": 2.0}))
