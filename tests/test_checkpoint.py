"""Checkpoints: whole or not there, checked when read, the right ones kept."""

from pathlib import Path

import jax
import numpy as np
import pytest
from subquad.experiments.checkpoint import Checkpoints
from subquad.experiments.errors import UserError
from subquad.experiments.step import State, program
from subquad.experiments.tree import flatten
from toy import toy_run


@pytest.fixture
def functions():
    return program(toy_run())


def state_of(functions, step: int) -> State:
    """A state with numbers of its own in every leaf."""
    draw = np.random.default_rng(step)
    fill = lambda x: jax.device_put((100 * draw.random(x.shape)).astype(x.dtype), x.sharding)  # noqa: E731
    return jax.tree.map(fill, functions.state)._replace(step=jax.numpy.int32(step))


def assert_equal(got: State | None, want: State) -> None:
    assert got is not None
    values = flatten(want)
    for name, leaf in flatten(got).items():
        np.testing.assert_array_equal(leaf, values[name], err_msg=name)


def steps_in(directory: Path) -> list[int]:
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def largest_file(directory: Path) -> Path:
    return max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_restores_what_was_saved_and_keeps_what_it_should(functions, tmp_path):
    """The two newest and the multiples of 30; the state may be consumed as soon as ``save`` returns."""
    checkpoints = Checkpoints(tmp_path, keep_last=2, keep_every=30)
    consume = jax.jit(lambda state: jax.tree.map(lambda x: x * 0, state), donate_argnums=0)
    for step in (10, 20, 30, 40, 50):
        state = state_of(functions, step)
        checkpoints.save(step, state)
        consume(state)
    checkpoints.close()
    assert steps_in(tmp_path) == [30, 40, 50]
    again = Checkpoints(tmp_path)
    assert_equal(again.restore(functions.state), state_of(functions, 50))
    model = again.restore_model(functions.state)
    assert_equal(model._replace(optimizer=(), step=0, seed=0, bad_steps=0, bad_run=0),
                 state_of(functions, 50)._replace(optimizer=(), step=0, seed=0, bad_steps=0, bad_run=0))  # fmt: skip


def test_restores_onto_other_devices(functions, tmp_path):
    state = state_of(functions, 10)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(10, state)
    checkpoints.wait()
    sharded = program(toy_run(devices=8)).state
    got = checkpoints.restore(sharded)
    assert_equal(got, state)
    assert [x.sharding for x in jax.tree.leaves(got)] == [x.sharding for x in jax.tree.leaves(sharded)]


@pytest.mark.parametrize("damage", ["truncated", "a flipped bit", "a file gone"])
def test_falls_back_to_the_one_before(functions, tmp_path, damage):
    lines = []
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep_last=3, say=lines.append)
    for step in (10, 20):
        checkpoints.save(step, state_of(functions, step))
    checkpoints.close()
    file = largest_file(tmp_path / "checkpoints" / "20" / "model")
    data = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "a flipped bit":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    else:
        file.unlink()
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep_last=3, say=lines.append)
    assert_equal(checkpoints.restore(functions.state), state_of(functions, 10))
    (line,) = lines
    assert line.startswith("checkpoint 20 cannot be read (")
    assert line.endswith("falling back to 10")
    assert (tmp_path / "corrupt" / "20").is_dir()
    checkpoints.save(20, state_of(functions, 21))  # in the place of the one set aside
    checkpoints.close()
    assert_equal(
        Checkpoints(tmp_path / "checkpoints").restore(functions.state), state_of(functions, 21)._replace(step=21)
    )


def test_says_so_when_none_is_left(functions, tmp_path):
    lines = []
    checkpoints = Checkpoints(tmp_path / "checkpoints", say=lines.append)
    checkpoints.save(10, state_of(functions, 10))
    checkpoints.wait()
    largest_file(tmp_path / "checkpoints" / "10" / "rest").unlink()
    assert checkpoints.restore(functions.state) is None
    assert lines[0].endswith("starting over, as there is none before it")
    with pytest.raises(UserError, match="no checkpoint that can be read"):
        Checkpoints(tmp_path / "checkpoints", read_only=True).restore_model(functions.state)


def test_a_final_model_is_no_place_to_go_on_from(functions, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(10, state_of(functions, 10), model_only=True)
    checkpoints.wait()
    want = flatten(state_of(functions, 10).params)
    got = flatten(Checkpoints(tmp_path, read_only=True).restore_model(functions.state).params)
    for name, leaf in got.items():
        np.testing.assert_array_equal(leaf, want[name], err_msg=name)
    assert checkpoints.restore(functions.state) is None
    checkpoints.save(10, state_of(functions, 11))
    checkpoints.close()
    assert_equal(Checkpoints(tmp_path).restore(functions.state), state_of(functions, 11))
