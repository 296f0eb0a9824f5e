"""Lanes: the figures of single runs, but for rounding, and the same files."""

import dataclasses

import numpy as np
import pytest
from subquad.experiments.errors import UserError
from subquad.experiments.lanes import train_lanes
from subquad.experiments.metrics import read_metrics
from subquad.experiments.train import load_run, train
from subquad.experiments.tree import flatten
from toy import toy_run


def test_lanes_equal_single_runs(tmp_path):
    """One lane diverges, by a learning rate that overflows; the others do not notice."""
    base = toy_run(eval_every=20, max_bad_steps=3)
    variants = [(0, 1e-3), (4, 3e-3), (1, 1e30), (0, 2e-3)]
    runs = [dataclasses.replace(base, seed=s, optim=dataclasses.replace(base.optim, lr=lr)) for s, lr in variants]
    directories = [tmp_path / f"lane{i}" for i in range(4)]
    results = train_lanes(runs, directories)
    assert [result.diverged for result in results] == [False, False, True, False]
    for i, (run, directory, got) in enumerate(zip(runs, directories, results, strict=True)):
        want = train(run, tmp_path / f"single{i}", progress=False)
        rows, single = (list(read_metrics(d / "metrics.jsonl")) for d in (directory, tmp_path / f"single{i}"))
        assert [sorted(row) for row in rows] == [sorted(row) for row in single]
        assert (got.steps, got.bad_steps, got.diverged) == (want.steps, want.bad_steps, want.diverged)
        assert sorted(got.validation) == sorted(want.validation)
        if got.diverged:
            continue
        losses, expected = ([row["loss"] for row in lane if "loss" in row] for lane in (rows, single))
        np.testing.assert_allclose(losses, expected, rtol=1e-3, atol=1e-5, err_msg=f"lane {i}")
        np.testing.assert_allclose(got.test["loss"], want.test["loss"], rtol=1e-3, err_msg=f"lane {i}")
        params = flatten(load_run(tmp_path / f"single{i}")[1])
        for name, leaf in flatten(load_run(directory)[1]).items():
            np.testing.assert_allclose(leaf, params[name], rtol=1e-2, atol=1e-3, err_msg=f"lane {i}: {name}")
    assert train_lanes(runs, directories) == results


def test_runs_that_do_not_fit_together(tmp_path):
    with pytest.raises(UserError, match="lanes differ in seed"):
        train_lanes([toy_run(), toy_run(batch=16)], [tmp_path / "a", tmp_path / "b"])
    with pytest.raises(UserError, match="save only at the end"):
        train_lanes([toy_run(save_every=10)], [tmp_path / "a"])
