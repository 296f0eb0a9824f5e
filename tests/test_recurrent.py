"""What recurrent networks have of their own: the hand-written backward pass, and where their parameters start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from mixers import close, draw
from subquad.kernels.linear_scan.cases import PACKED, PADDED
from subquad.kernels.recurrence import scan_cell
from subquad.kernels.segments import scan_tokens
from subquad.layers import GRUConfig, LSTMConfig, MLSTMConfig, MLSTMLargeConfig, SLSTMConfig
from subquad.layers.gru import GRUState, gru_cell
from subquad.layers.lstm import LSTMState, lstm_cell

CELLS = {"lstm": (lstm_cell, LSTMState, 4), "gru": (gru_cell, GRUState, 3)}


@pytest.mark.parametrize("ids", [None, PACKED, PADDED], ids=["one document", "packed", "padding"])
@pytest.mark.parametrize("name", CELLS)
def test_the_backward_pass_is_that_of_the_definition(name, ids):
    cell, state_type, gates = CELLS[name]
    B, T, H, D = 2, 37, 3, 4
    inputs = {"x": draw(B, T, H, gates, D, seed=1), "r": draw(H, gates, D, D, seed=2) / 2}
    inputs["state"] = state_type(*(draw(B, H, D, seed=3 + i) for i in range(len(state_type._fields))))
    weights = draw(B, T, H, D, seed=8), jax.tree.map(lambda s: draw(*s.shape, seed=9), inputs["state"])
    ids = None if ids is None else jnp.asarray(ids)

    def ours(inputs):
        return scan_cell(cell, inputs["x"], inputs["r"], inputs["state"], ids)

    def definition(inputs):
        def step(state, x):
            state = cell(state, x, jnp.einsum("bhd,hged->bhge", state.h, inputs["r"]))
            return state, state.h

        state, y = scan_tokens(step, inputs["state"], inputs["x"], ids)
        return y, state

    def everything(run):
        outputs, vjp = jax.vjp(run, inputs)
        return outputs, vjp(weights)

    close(everything(ours), everything(definition), name)


def test_gates_start_where_the_official_code_has_them():
    keys = nnx.Rngs(0)
    for kind, i_bias in ((MLSTMConfig, 0.0), (MLSTMLargeConfig, -10.0)):
        mixer = kind(heads=4).build(64, depth=5, rngs=keys)
        i, f = np.split(np.asarray(mixer.gate_bias[...]), 2)
        assert not np.any(mixer.gates.kernel[...])
        np.testing.assert_allclose(f, [3, 4, 5, 6])
        assert np.abs(i - i_bias).max() < 0.5, i
    first, last = (np.asarray(SLSTMConfig().build(64, layer=n, depth=5, rngs=keys).bias[...]) for n in (0, 4))
    assert not np.any(first[:, [0, 2, 3]])
    j = np.arange(16) / 15
    np.testing.assert_allclose(first[:, 1], np.tile(5 - 12 * j**0.3, (4, 1)), rtol=1e-5)
    np.testing.assert_allclose(last[:, 1], np.tile(5 - 12 * j**1.6, (4, 1)), rtol=1e-5)
    assert np.all(LSTMConfig().build(8, rngs=keys).bias[0, 1] == 1)


def test_projections_of_xlstm_start_small():
    dim, depth = 256, 4
    mixer = MLSTMConfig().build(dim, depth=depth, rngs=nnx.Rngs(0))
    for kernel, std in ((mixer.up.kernel, (2 / (5 * dim)) ** 0.5), (mixer.down.kernel, 2 / depth / dim**0.5)):
        np.testing.assert_allclose(np.std(kernel[...]), std, rtol=0.02)


@pytest.mark.parametrize(
    "config", [MLSTMConfig(heads=5), MLSTMLargeConfig(heads=5), SLSTMConfig(heads=5), GRUConfig(heads=5)]
)
def test_heads_that_do_not_divide_are_refused(config):
    with pytest.raises(ValueError, match="is no multiple of heads=5"):
        config.build(48, rngs=nnx.Rngs(0))
