"""``subquad profile``: that it measures what it says; the times themselves are nobody's test."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from subquad.archs import LM, preset
from subquad.experiments.cli import parse
from subquad.experiments.errors import UserError
from subquad.experiments.profile import decode, tpu
from subquad.experiments.profile.schedule import count
from subquad.experiments.profile.workloads import Point, Size


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


def test_refusals():
    with pytest.raises(UserError, match="a context has at least one token, not 0"):
        parse(["profile", "decode", "--contexts", "0"])()
    with pytest.raises(UserError, match="there is no architecture 'mamba22': did you mean 'mamba2'"):
        parse(["profile", "decode", "--archs", "mamba22"])()


def test_a_kernel_s_cycles_are_counted_without_a_tpu():
    point = Point("gla scalar", Size(T=512, H=2), backward=False)
    (one,) = count([point], "v6e")
    assert [(kernel.name, kernel.steps) for kernel in one.kernels] == [("gla_scalar_forward", 2)]
    cells = dict(zip(tpu.COLUMNS, tpu.row("v6e", point, one), strict=True))
    assert float(cells["matrix floor"]) < float(cells["kernels"]) <= float(cells["both"])
    assert float(cells["memory floor"]) == pytest.approx((4 * 128 * 2 + 4) / 1640 * 1.75, abs=0.01)


def test_an_unknown_kernel_is_named():
    with pytest.raises(UserError, match="there is no 'gla scaler': did you mean 'gla scalar'"):
        parse(["profile", "tpu", "--ops", "gla scaler"])()
