"""``subquad profile``: that it measures what it says; the times themselves are nobody's test."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx
from subquad.archs import LM, preset
from subquad.experiments.cli import parse
from subquad.experiments.errors import UserError
from subquad.experiments.profile import decode, drift, length, memory, tpu
from subquad.experiments.profile.schedule import Compiled, Kernel, count
from subquad.experiments.profile.workloads import Point, Size
from subquad.experiments.report import tpu as tpu_report


def test_only_architectures_whose_state_stops_growing_are_linear():
    found = decode.linear_time(65_536)
    assert {"mamba2", "min_gru", "griffin"} <= set(found)
    assert not {"transformer", "gated_deltanet_hybrid"} & set(found)


def test_the_context_is_really_read(monkeypatch):
    monkeypatch.setattr(decode, "PIECE", 8)
    model = dataclasses.replace(preset("min_gru"), dim=16, depth=1)
    lm = LM(model, rngs=nnx.Rngs(0))
    prompt = jax.random.randint(jax.random.key(1), (21,), 0, model.vocab)
    want = lm.prefill(prompt[None], lm.init_cache(1, 0))[1]
    got = decode._read(*nnx.split(lm), 21, 30)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)
    cost = decode.measure("min_gru", model, (3, 21), tokens=2, rounds=1)
    assert len(cost.microseconds) == 2
    assert all(us > 0 for us in cost.microseconds)


def test_the_memory_of_a_reversible_trunk_is_flat_in_depth():
    tiny = dataclasses.replace(preset("min_gru"), dim=16, mlp=None)

    def temporaries(residual: str, depth: int) -> int:
        model = dataclasses.replace(tiny, residual=residual, depth=depth)
        return memory.measure([model], 512, rounds=0)[0].bytes

    shallow, deep = temporaries("reversible", 5), temporaries("reversible", 40)
    assert deep < 1.05 * shallow, f"{shallow} bytes at depth 5, {deep} at depth 40"
    assert temporaries("standard", 40) > 4 * deep


def test_a_drawn_figure_stands_alone():
    drawn = memory.plot((4, 8), {"standard": [4000, 8000], "reversible": [900, 900]})
    assert drawn.startswith("<svg")
    assert "--arch-0:" in drawn
    assert "reversible" in drawn


@pytest.mark.parametrize("start", [2, 256, 2**24])
@pytest.mark.parametrize(
    ("need", "longest"),
    [(lambda T: 10 * T, 96), (lambda T: T * T, 24), (lambda T: 900 + T, 96), (lambda _: 1001, 0), (lambda _: 1, 2**24)],
)
def test_the_longest_length_within_a_limit(need, longest, start):
    asked = []
    found, used = length.longest(lambda T: asked.append(T) or need(T), 1000.0, start)
    assert found == longest
    assert not found or used == need(found)
    assert len(asked) == len(set(asked))


def test_a_step_holds_its_state_and_more_with_length():
    model = dataclasses.replace(preset("min_gru"), dim=16, depth=1, mlp=None)
    short = length.step_bytes(model, 8)
    assert short > 12 * model.param_count()
    assert length.step_bytes(model, 512) > short + 4 * 504 * 16


def test_drift_is_small_and_bfloat16_is_not_float32():
    found = drift.measure(dataclasses.replace(preset("min_gru"), dim=16, depth=8, mlp=None, residual="reversible"), 16)
    assert found.float32 < 1e-5
    assert found.bfloat16 < 2e-2
    assert 1e-4 < found.rounding < 0.2


def test_the_record_holds_what_the_table_shows(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(decode, "measure", lambda arch, model, contexts: decode.Cost(arch, (100.04, 150.0)))
    parse(["profile", "decode", "--archs", "min_gru", "--contexts", "1", "2", "--record", str(tmp_path / "r.json")])()
    record = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert record["microseconds"] == {"min_gru": [100.0, 150.0]}
    assert record["contexts"] == [1, 2]
    assert record["device"] == jax.devices()[0].device_kind
    assert {"100", "150", "1.50"} <= {*capsys.readouterr().out.split()}


def test_refusals():
    with pytest.raises(UserError, match="depths and length are at least 1, not 0"):
        parse(["profile", "memory", "--depths", "0"])()
    with pytest.raises(UserError, match="the memory is above 0 GiB, not -1"):
        parse(["profile", "length", "--gib", "-1"])()
    with pytest.raises(UserError, match="a context has at least one token, not 0"):
        parse(["profile", "decode", "--contexts", "0"])()
    with pytest.raises(UserError, match="there is no folder nowhere for the record"):
        parse(["profile", "decode", "--record", "nowhere/decode.json"])()
    with pytest.raises(UserError, match="there is no architecture or layer 'mamba22': did you mean 'mamba2'"):
        parse(["profile", "decode", "--archs", "mamba22"])()


@pytest.mark.optimized
def test_a_kernel_s_cycles_are_counted_without_a_tpu():
    point = Point("gla scalar", Size(T=512, H=2), backward=False)
    failed, one = count([Point("no such op", Size(), backward=False), point], "v6e")
    assert failed == "KeyError: 'no such op'"
    assert isinstance(one, Compiled)
    assert [(kernel.name, kernel.steps) for kernel in one.kernels] == [("gla_scalar_forward", 2)]
    row = tpu.figures("v6e", point, one)
    assert row["matrix floor"] < row["kernels"] <= tpu.both(row)
    assert row["memory floor"] == pytest.approx((4 * 128 * 2 + 4) / 1640 * 1.75, abs=0.01)


def test_an_unknown_kernel_is_named():
    with pytest.raises(UserError, match="there is no 'gla scaler': did you mean 'gla scalar'"):
        parse(["profile", "tpu", "--ops", "gla scaler"])()


def test_the_record_of_a_tpu_keeps_what_was_not_counted_again(tmp_path, capsys, monkeypatch):
    kernel = Kernel("kernel", 100, 8, {"MXU": 40, "VLOAD:FILL": 30, "VSTORE:SPILL": 0}, {"MXU": 2, "VALU": 4, "EUP": 1})
    kernel.slots.update({"VLOAD:FILL": 3, "VSTORE:SPILL": 2})
    found = {False: "ValueError: more than its memory", True: Compiled((kernel,), 5, 0)}
    monkeypatch.setattr(tpu, "count", lambda points, _: [found[point.backward] for point in points])
    monkeypatch.setattr(tpu, "installed", lambda _: {})
    run = ["profile", "tpu", "--shapes", "100,2,64,64", "--record", str(tmp_path / "tpu.json"), "--ops"]
    assert parse([*run, "gla scalar"])() == 0
    assert parse([*run, "delta vector,delta vector tokamax"])() == 0
    said = capsys.readouterr().out
    assert "v6e gla scalar, forward: ValueError: more than its memory" in said
    assert "v6e delta vector tokamax, forward+backward: not installed: pip install 'subquad[peers]'" in said
    rows = json.loads((tmp_path / "tpu.json").read_text())["rows"]
    assert [(row["op"], row["pass"], "missing" in row) for row in rows] == [
        ("gla scalar", "forward", True),
        ("gla scalar", "forward+backward", False),
        ("delta vector", "forward", True),
        ("delta vector", "forward+backward", False),
        ("delta vector tokamax", "forward", True),
        ("delta vector tokamax", "forward+backward", True),
    ]
    assert (rows[1]["kernels"], rows[1]["matrix floor"], rows[1]["spill slots"]) == (4, 0.8, 0.1)
    with pytest.raises(UserError, match="a shape is T,H,K,V"):
        parse(["profile", "tpu", "--shapes", "8192"])()
    lines = tpu_report.document(json.loads((tmp_path / "tpu.json").read_text())).splitlines()
    (line,) = [line for line in lines if line.startswith("| gla scalar |")]
    assert line.startswith("| gla scalar | – / 4.00 | – / 0.00 | – / 4.00 |")
    assert any(line.startswith("| delta vector tokamax | not installed") for line in lines)


def test_the_document_of_tpu_kernels_is_that_of_its_record():
    record = json.loads(tpu_report.RECORD.read_text())
    assert tpu_report.DOCUMENT.read_text() == tpu_report.document(record)
