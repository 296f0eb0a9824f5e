"""A run's configuration: what it refuses, and its way to JSON and back."""

import dataclasses
import json
import sys

import pytest
from subquad.experiments.config import from_json, to_json
from subquad.experiments.errors import UserError
from subquad.experiments.serialize import difference, load_user_file, user_files
from toy import HYBRID, ToyConfig, toy_run

MIXER = """
from dataclasses import dataclass
from subquad.layers import MinGRUConfig

@dataclass(frozen=True)
class SlowGRUConfig(MinGRUConfig):
    slowness: tuple[float, ...] = (0.5, 1e-7)
"""


def test_round_trip():
    run = toy_run(model={"pattern": HYBRID, "depth": 4}, optim={"lr": 1 / 3}, data_seed=7, data={"poison": (1, 2)})
    assert from_json(json.loads(json.dumps(to_json(run)))) == run


def test_a_users_own_mixer(tmp_path, monkeypatch):
    """A config class from a file outside the package is found again by a process that knows the file only."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "my_slow_mixer.py"
    file.write_text(MIXER)
    module = load_user_file(file)
    run = toy_run(model={"pattern": (module.SlowGRUConfig(slowness=(0.25,)),)})
    assert user_files(run)["my_slow_mixer"] == str(file)
    text = json.dumps(to_json(run))
    del sys.modules["my_slow_mixer"]
    load_user_file(file)
    again = from_json(json.loads(text))
    assert again.model.pattern[0].slowness == (0.25,)
    assert to_json(again) == to_json(run)


def test_user_file_mistakes(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(UserError, match="there is no file"):
        load_user_file(tmp_path / "absent.py")
    (tmp_path / "json.py").write_text("")
    with pytest.raises(UserError, match=r"another module \(json\): rename"):
        load_user_file(tmp_path / "json.py")
    (tmp_path / "broken_user_file.py").write_text("1 / 0")
    with pytest.raises(UserError, match="ZeroDivisionError"):
        load_user_file(tmp_path / "broken_user_file.py")


def test_unknown_field_and_class():
    data = to_json(toy_run())
    with pytest.raises(UserError, match=r"no field 'stepz': did you mean 'steps'\?"):
        from_json(data | {"stepz": 3})
    with pytest.raises(UserError, match=r"subquad\.experiments\.config:Gone is not a class"):
        from_json(data | {"optim": {"type": "subquad.experiments.config:Gone"}})
    with pytest.raises(UserError, match="No module named 'nowhere'"):
        from_json(data | {"optim": {"type": "nowhere:Gone"}})
    with pytest.raises(UserError, match="dim=0"):
        from_json(data | {"model": data["model"] | {"dim": 0}})
    with pytest.raises(UserError, match="a config holds"):
        to_json(dataclasses.replace(toy_run(), data=ToyConfig(length={3})))  # pyright: ignore


def test_difference_names_the_first_field():
    run = toy_run()
    other = toy_run(optim={"lr": 3e-3}, model={"pattern": HYBRID})
    assert difference(to_json(run), to_json(run)) is None
    assert difference(to_json(run), to_json(other))[0] == "model.pattern"
    assert difference(to_json(run), to_json(toy_run(optim={"lr": 3e-3}))) == ("optim.lr", 1e-2, 3e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"batch": 12, "devices": 8},
            "batch 12 does not divide over 8 devices x 1 .*: use a multiple of 8",
        ),
        ({"batch": 8, "accumulate": 3}, r"batch 8 does not divide over 1 devices x 3 micro-batches"),
        ({"steps": 0}, "steps is at least 1, not 0"),
        ({"seed": 2**32}, r"seed is below 2\*\*32"),
        ({"save_every": 10, "keep_every": 15}, "keep_every 15 is not a multiple of save_every 10"),
        ({"optim": {"warmup": 1.5}}, r"optim\.warmup is a fraction"),
        ({"optim": {"warmup": 0.9, "decay": 0.2, "schedule": "wsd"}}, r"optim\.warmup \+ optim\.decay is 1\.1"),
        ({"optim": {"lr": -1.0}}, r"optim\.lr and optim\.clip are above 0"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(UserError, match=message):
        toy_run(**changes)


@pytest.mark.parametrize(
    ("steps", "evaluate", "save", "chunk", "want"),
    [(600, 0, 0, 20, 20), (600, 100, 60, 20, 20), (600, 0, 30, 20, 15), (7, 0, 0, 20, 7), (601, 0, 0, 20, 1)],
)
def test_chunks_end_on_every_boundary(steps, evaluate, save, chunk, want):
    run = toy_run(steps=steps, eval_every=evaluate, save_every=save, chunk=chunk)
    assert run.chunk_steps == want
