"""``subquad profile gpu``: rows, records and the table; the times themselves are nobody's test."""

import json
import os
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from subquad.experiments.cli import parse
from subquad.experiments.errors import UserError
from subquad.experiments.profile import gpu
from subquad.experiments.profile.gpu import isolate, measure, ops, peers, plan, pytorch, record, step
from subquad.experiments.profile.gpu.plan import Plan
from subquad.experiments.profile.gpu.record import Record, Row
from subquad.kernels import dispatch
from subquad.kernels import gpu as device

README = Path(__file__).parent.parent / "README.md"
LIMITS = measure.Card(1e9, 1e9)
HOST = {"device": "NVIDIA H100 80GB HBM3", "platform": "gpu", "driver": "1", "versions": {"jax": "0.12"}, "git": None}


def test_rows_are_kept_and_not_measured_again(tmp_path, capsys, monkeypatch):
    file = tmp_path / "gpu.json"
    command = ["profile", "gpu", "--ops", "gla scalar", "--tiny", "--record", str(file)]
    assert parse(command)() == 0
    assert "pallas_gpu      no figure: gla: impl='pallas_gpu' cannot run this: this is a cpu" in capsys.readouterr().out
    found = json.loads(file.read_text())
    assert found["finished"]
    measured = [row for row in found["rows"] if row["by"] == "xla"]
    assert [row["passed"] for row in measured] == ["forward", "forward+backward"]
    for row in measured:
        assert row["reason"] == ""
        assert row["milliseconds"] > 0
        assert 0 < row["error"] < 1e-2, row

    def refuse(self, by, *_):
        raise AssertionError(f"{by} is measured again") if by == "xla" else ValueError("no")

    monkeypatch.setattr(measure.Task, "row", refuse)
    parse(command)()
    again = json.loads(file.read_text())["rows"]
    assert [row for row in again if row["by"] == "xla"] == measured
    assert {row["reason"] for row in again if row["by"] == "pallas_gpu"} == {"no"}


def test_an_unknown_op_is_named():
    with pytest.raises(UserError, match="there is no 'gla scala': did you mean 'gla scalar'"):
        parse(["profile", "gpu", "--ops", "gla scala"])()


def test_a_contestant_that_errs_is_seen_and_one_that_fails_stops_nothing(monkeypatch):
    def broken(x):
        raise RuntimeError("an illegal address\nand more")

    found = {"wrong": measure.of_jax(lambda x: 1.1 * x["v"]), "broken": measure.of_jax(broken)}
    monkeypatch.setattr(peers, "contestants", lambda name: found)
    rows = list(plan.attempts(Plan(("gla none",), True, LIMITS)))
    assert [(row.by, row.passed) for row, _ in rows] == [
        (by, passed) for passed in plan.PASSES for by in ("pallas_gpu", "xla", *found)
    ]
    for row, healthy in rows:
        assert healthy == (row.by != "broken")
        if row.by == "broken":
            assert row.reason == "an illegal address"
        elif row.by != "pallas_gpu":
            assert (row.error > 0.1) == (row.by == "wrong")


def answers(there, asked, done):
    """A worker: the second row ends its process, and at the fourth it says nothing."""
    for number, key in enumerate(asked.rows()):
        if key in done:
            continue
        if number == 1:
            os._exit(7)
        if number == 3:
            time.sleep(60)
        there.send((Row(*key, milliseconds=number), True))


def test_a_process_that_dies_or_hangs_costs_its_row_alone():
    asked = Plan(("gla scalar",), True, LIMITS)
    keys = list(asked.rows())
    rows = list(isolate.isolated(asked, keys, patience=2.0, start=60.0, work=answers))
    assert [row.key for row in rows] == keys
    assert [row.milliseconds for row in rows] == [0, None, 2, None, *range(4, len(keys))]
    assert [row.reason for row in rows[1:4:2]] == ["its process ended with 7", "no answer in 2 s"]


@pytest.mark.parametrize("name", ops.OPS)
def test_every_op_takes_its_arguments_at_every_size(name):
    op = ops.OPS[name]
    assert set(op.impls()) <= set(dispatch.IMPLEMENTATIONS[op.kernel])
    for size in ops.SIZES:
        x = jax.eval_shape(lambda size=size: ops.inputs(op, size, 0))
        dy = jax.eval_shape(lambda x: ops.cotangent(op, x, 0), x)
        assert dy.shape[:2] == (size.B, size.T)


def test_the_floor_is_that_of_the_bytes_or_of_the_products():
    op, size = ops.OPS["gla scalar"], ops.SIZES[0]
    x = jax.eval_shape(lambda: ops.inputs(op, size, 0))
    dy = jax.eval_shape(lambda x: ops.cotangent(op, x, 0), x)
    heads = 4 * 4096 * 16
    assert ops.least(op, size, x, dy, False) == (heads * (4 * 128 * 2 + 4), heads * 4 * 128 * 128)
    assert ops.least(op, size, x, dy, True) == (heads * (3 * (3 * 128 * 2 + 4) + 2 * 128 * 2), heads * 12 * 128 * 128)
    assert measure.Card(100.0, 10.0).floor(50, 2) == 500
    assert measure.Card(100.0, 10.0).floor(50, 8) == 800


def test_a_model_takes_kernels_where_they_are_asked_for(monkeypatch):
    monkeypatch.setattr(device, "kind", lambda: HOST["device"])
    batch = next(step.batches(256, (1, 64)))
    config = step.TOYS["mamba2 130m"].config
    for kernels, impl in ((True, "pallas_gpu"), (False, "xla")):
        with device.auto_takes(kernels):
            program = step.Program(config, step.OptimConfig(), 10, 1, "bfloat16", 10, 1, False)
            assert step.implementations(program, batch)["gla"] == impl


def test_models_are_of_one_size():
    sizes = {name: model.config.param_count() for name, model in step.MODELS.items()}
    assert sizes["mamba2 130m"] == 128_989_632
    assert sizes["gated_deltanet 130m"] == pytest.approx(sizes["mamba2 130m"], rel=0.05)


def test_a_record_of_something_else_is_not_continued(tmp_path):
    kept = Record(tmp_path / "gpu-a.json", HOST)
    kept.add(Row("gla none", "1,1,1,1,1", "forward", "xla", 1.0, error=float("nan")))
    assert record.where(HOST, tmp_path) == kept.path, "a run that was stopped goes on"
    again = Record(kept.path, HOST).rows
    assert [(row.milliseconds, row.error, row.note) for row in again.values()] == [(1.0, None, "error nan")]
    with pytest.raises(UserError, match="is of another versions"):
        Record(kept.path, HOST | {"versions": {"jax": "0.13"}})
    kept.finish()
    assert record.where(HOST, tmp_path) != kept.path


def test_the_table_compares_with_our_kernel(tmp_path):
    assert record.table(tmp_path) == record.NONE
    kept = Record(tmp_path / "gpu-a.json", HOST)
    kept.content |= LIMITS._asdict()
    for size, times in {"1": (2.0, 3.0, 8.0), "2": (4.0, 6.0, None)}.items():
        for by, ms in zip(("pallas_gpu", "xla", "fla"), times, strict=True):
            kept.add(Row("gla none", size, "forward+backward", by, ms, floor=1.0, error=4e-3))
    kept.add(Row("mamba2 130m", "8,4096", "step", "xla", 100.0, tokens_per_s=3e5, utilisation=0.3, note="gla: xla"))
    lines = record.table(tmp_path).splitlines()
    assert "| `gla none` | 1 | 2.00 (4e-3) | 3.00 (4e-3) | 8.00 (4e-3) | 50% |" in lines
    assert "| `gla none` | 2 | 4.00 (4e-3) | 6.00 (4e-3) | – | 25% |" in lines
    assert "| | over pallas_gpu | **1.00x** | **1.50x** | **4.00x** | |" in lines
    assert "| mamba2 130m | 8,4096 | xla | 300,000 | 30.0% | gla: xla |" in lines


def test_the_readme_holds_the_newest_table(capsys):
    parse(["profile", "gpu", "--markdown"])()
    found = capsys.readouterr().out.strip()
    assert found == gpu.table()
    between = README.read_text("utf-8").partition("<!-- table: subquad profile gpu --markdown -->")[2]
    assert between.partition("<!-- end table -->")[0].strip() == found


def test_tensors_of_another_library_are_named_as_ours():
    """Every adapter is of an op that there is."""
    assert {*peers.JLA, *peers.JLA_KERNELS, *peers.CUDNN, *pytorch.FLA} <= set(ops.OPS)
    assert measure.worst([np.array([1.0, np.nan])], [np.ones(2)]) != 0
