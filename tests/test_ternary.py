"""Ternary projections: their roundings, gradients and packing against definitions, and that every mixer takes them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from mixers import DEFAULTS, DIM, close, draw, each_default
from subquad.archs import LM, LMConfig
from subquad.experiments.commands import Export
from subquad.experiments.compare.contestants import base, contestants
from subquad.experiments.compare.settings import Task
from subquad.experiments.errors import UserError
from subquad.experiments.export import export_ternary, largest_difference, load_ternary
from subquad.layers import BitLinear, MLGRUConfig, SwiGLUConfig, to_ternary
from subquad.layers.packed import PackedLinear, pack, sum_of_selected, to_packed, unpack
from subquad.layers.ternary import eight_bits, norm_params, ternary_product, trits
from toy import toy_run

I, O = 37, 11


def bit_linear(dtype=jnp.float32, seed: int = 0) -> BitLinear:
    """A projection whose every parameter is away from where it starts."""
    linear = to_ternary(nnx.Linear(I, O, dtype=dtype, rngs=nnx.Rngs(seed)))
    noise = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + jnp.asarray(0.3 * noise.normal(size=p.shape), jnp.float32), linear)


def rounded(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, ...]:
    """The papers' formulas in float64: whole activations and their scales, trits and their scale."""
    s = np.maximum(np.abs(x).max(-1, keepdims=True), 1e-5) / 127
    m = max(np.abs(w).mean(), 1e-5)
    return np.round(x / s), s, np.clip(np.round(w / m), -1, 1), m


def test_rounding_and_its_gradients_are_the_papers():
    x, w, dy = draw(3, 5, I), draw(I, O, seed=1) + 0.2, draw(3, 5, O, seed=2)
    x = x.at[1, 2].set(0).at[0, 0].multiply(1e4).at[0, 1].multiply(1e-7)
    (q, s), (t, m) = eight_bits(x), trits(w)
    want = rounded(np.asarray(x, np.float64), np.asarray(w, np.float64))
    for got, expected, what in zip((q, s, t, m), want, ("q", "s", "t", "m"), strict=True):
        close(got, expected, what, 1e-6)
    assert q.dtype == t.dtype == jnp.int8
    assert np.abs(np.asarray(q)).max() == 127
    assert {-1, 0, 1} == set(np.unique(t).tolist())

    y, vjp = jax.vjp(lambda x, w: ternary_product(x, w, jnp.float32), x, w)
    q, s, t, m = want
    close(y, q * s @ t * m, "y", 1e-6)
    dx, dw = vjp(dy)
    dy = np.asarray(dy, np.float64)
    close(dx, dy @ (t * m).T, "dx", 1e-6)
    close(dw, np.einsum("bti,bto->io", q * s, dy), "dw", 1e-6)


def test_a_matrix_of_zeros_and_a_nan_pass_through():
    zero = ternary_product(draw(2, I), jnp.zeros((I, O)), jnp.float32)
    assert not np.any(zero)
    bad = ternary_product(draw(2, I).at[0, 3].set(jnp.nan), draw(I, O), jnp.float32)
    assert np.isnan(bad[0]).all()
    assert np.isfinite(bad[1]).all()


def test_a_projection_is_the_papers_code():
    """With the trick of both papers' code, which rounds by adding what has no gradient."""
    linear, x, dy = bit_linear(), draw(3, I), draw(3, O, seed=1)

    def straight(value, to):
        return value + jax.lax.stop_gradient(to - value)

    def published(linear, x):
        normed = x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6) * linear.norm.scale
        (q, s), (t, m) = eight_bits(normed), trits(linear.kernel[...])
        return straight(normed, q * s) @ straight(linear.kernel[...], t * m) + linear.bias

    @jax.jit
    def run(linear, x, dy):
        (y, vjp), (want, oracle) = jax.vjp(BitLinear.__call__, linear, x), jax.vjp(published, linear, x)
        return (y, vjp(dy)), (want, oracle(dy))

    close(*run(linear, x, dy), "y and gradients of ", 1e-5)


def test_five_trits_fit_a_byte():
    every = jnp.asarray(np.indices((3,) * 5).reshape(5, -1) - 1, jnp.int8)
    assert sorted(np.asarray(pack(every))[0].tolist()) == list(range(243))
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (5, 2), (4, 3, 13, 2)):
        t = jnp.asarray(rng.integers(-1, 2, shape), jnp.int8)
        packed = pack(t)
        assert packed.dtype == jnp.uint8
        assert packed.shape == (*shape[:-2], -(-shape[-2] // 5), shape[-1])
        np.testing.assert_array_equal(unpack(packed, shape[-2]), t)


def test_sums_of_selected_inputs_are_the_product():
    rng = np.random.default_rng(0)
    q, t = rng.integers(-127, 128, (2, 3, I)).astype(np.int8), rng.integers(-1, 2, (I, O)).astype(np.int8)
    np.testing.assert_array_equal(sum_of_selected(jnp.asarray(q), jnp.asarray(t)), q.astype(int) @ t.astype(int))
    # 300 products of 127 would leave 16 bits.
    most = sum_of_selected(jnp.full((1, 300), 127, jnp.int8), jnp.ones((300, 1), jnp.int8))
    assert int(most[0, 0]) == 38_100
    operations = str(jax.make_jaxpr(sum_of_selected)(q, t))
    assert "add" in operations
    assert not [name for name in (" mul ", "dot_general", "integer_pow") if name in operations], operations


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_additions_alone_give_the_bits_of_training(dtype):
    """One projection, and a stack of them scanned."""
    x = draw(4, I).astype(dtype)
    linear = bit_linear(dtype)
    np.testing.assert_array_equal(jax.jit(to_packed(linear))(x), jax.jit(linear)(x))

    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), bit_linear(dtype), bit_linear(dtype, seed=1))

    def scanned(stack):
        return jax.lax.scan(lambda _, linear: (None, linear(x)), None, stack)[1]

    assert isinstance(to_packed(stack), PackedLinear)
    np.testing.assert_array_equal(jax.jit(scanned)(to_packed(stack)), jax.jit(scanned)(stack))


def test_lanes_and_shards_change_nothing():
    linears, x = [bit_linear(seed=seed) for seed in (0, 1)], draw(8, I)
    lanes = jax.tree.map(lambda *leaves: jnp.stack(leaves), *linears)
    call = functools.partial(jax.vmap(lambda linear, x: linear(x), (0, None)))
    close(jax.jit(call)(lanes, x), jnp.stack([linear(x) for linear in linears]), "lanes", 1e-6)

    wide = to_ternary(nnx.Linear(I, 8, rngs=nnx.Rngs(0)))
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    place = lambda leaf: NamedSharding(mesh, PartitionSpec(*[None] * (leaf.ndim - 1), "data"))  # noqa: E731
    divides = lambda leaf: place(leaf) if leaf.shape[-1] % 4 == 0 else NamedSharding(mesh, PartitionSpec())  # noqa: E731
    sharded = jax.device_put(wide, jax.tree.map(divides, wide))
    step = jax.jit(jax.value_and_grad(lambda linear, x: jnp.sum(linear(x) ** 2)))
    rows = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    close(step(sharded, rows), step(wide, x), "shards", 1e-5)


def ternary(config, **changes) -> LMConfig:
    settings = {"vocab": 7, "dim": DIM, "depth": 1, "pattern": (config,), "projection": "ternary", "tied": False}
    return LMConfig(**{**settings, **changes})


@each_default
def test_every_mixer_takes_ternary_projections(name):
    """Built and run by shape: no dense projection is left, and the count is exact."""
    config = ternary(DEFAULTS[name])

    def run():
        lm = LM(config, rngs=nnx.Rngs(0))
        return lm, lm(jnp.zeros((1, 3), jnp.int32))

    lm, logits = jax.eval_shape(run)
    parts = jax.tree.leaves(lm, is_leaf=lambda part: isinstance(part, nnx.Linear | BitLinear))
    assert not [part for part in parts if isinstance(part, nnx.Linear)], f"{name}: a dense projection is left"
    count = sum(isinstance(part, BitLinear) for part in parts)
    assert (count == 1) == (name == "slstm"), f"{name}: {count} ternary with the head; sLSTM is block-diagonal"
    built = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(lm, nnx.Param)))
    assert config.param_count() == built, name
    assert config.flops_per_token(3) == dataclasses.replace(config, projection="dense").flops_per_token(3)
    assert (logits.shape, logits.dtype) == ((1, 3, 7), jnp.float32), name


def test_steps_of_a_scanned_trunk_in_lanes_lower_the_loss():
    """In bfloat16, two seeds at once; ``test_archs.py`` trains ``matmul_free`` in float32."""
    config = ternary(MLGRUConfig(), dim=16, depth=5, mlp=SwiGLUConfig(24), embed_std=0.3)
    tokens = jax.random.randint(jax.random.key(1), (2, 13), 0, config.vocab)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0,))
    def steps(key):
        graph, params, rest = nnx.split(LM(config, dtype=jnp.bfloat16, rngs=nnx.Rngs(params=key)), nnx.Param, ...)

        def loss(params):
            logits = jax.nn.log_softmax(nnx.merge(graph, params, rest)(tokens[:, :-1]))
            return -jnp.mean(jnp.take_along_axis(logits, tokens[:, 1:, None], axis=-1))

        def step(params, _):
            value, grad = jax.value_and_grad(loss)(params)
            return jax.tree.map(lambda p, g: p - 0.03 * g, params, grad), value

        return jax.lax.scan(step, params, length=4)[1]

    losses = np.asarray(steps(jax.random.split(jax.random.key(0), 2)))
    assert np.isfinite(losses).all()
    assert (losses[:, -1] < losses[:, 0]).all(), losses


def test_ternary_projections_add_norms_alone(monkeypatch):
    config = ternary(MLGRUConfig(), dim=8, mlp=SwiGLUConfig(16))
    configs = (config, dataclasses.replace(config, projection="dense"))
    made, dense = (nnx.eval_shape(lambda c=c: LM(c, rngs=nnx.Rngs(0))) for c in configs)
    made, dense = (dict(nnx.to_flat_state(nnx.state(lm, nnx.Param))) for lm in (made, dense))
    added = made.keys() - dense.keys()
    assert dense.keys() < made.keys()
    assert {path[-2:] for path in added} == {("norm", "scale")}
    assert sum(made[path].size for path in added) == 4 * 8 + (8 + 16) + 8
    assert norm_params(MLGRUConfig(), 8) == 4 * 8
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which would speak first
    with pytest.raises(ValueError, match="projection='binary'; choose from 'dense', 'ternary'"):
        dataclasses.replace(config, projection="binary")


def test_a_comparison_keeps_an_architectures_projections():
    assert base("gated_deltanet+projection=ternary").projection == "ternary"
    with pytest.raises(UserError, match="projection"):
        base("gated_deltanet+projection=binary")
    run = toy_run()
    task = Task("toy", run.data, (32,), 2, 2, SwiGLUConfig(64), run.steps, run.batch, (1e-2,), 1)
    found = contestants(["min_gru", "min_gru+projection=ternary"], task, 32)
    assert [contestant.model.projection for contestant in found] == ["dense", "ternary"]
    assert abs(found[1].parameters / found[0].parameters - 1) < 0.02


@pytest.fixture(scope="module")
def lm() -> LM:
    config = LMConfig(29, 32, 2, (MLGRUConfig(),), SwiGLUConfig(24), projection="ternary", tied=False, embed_std=0.3)
    return jax.jit(lambda key: LM(config, rngs=nnx.Rngs(params=key)))(jax.random.key(0))


def test_an_export_reads_back_as_what_was_trained(lm, tmp_path, monkeypatch, capsys):
    file = tmp_path / "model.npz"
    monkeypatch.setattr("subquad.experiments.train.load_run", lambda directory: (None, lm))
    assert Export(tmp_path / "run", file)() == 0
    said = capsys.readouterr().out
    weights = 2 * (4 * 32 * 32 + 3 * 32 * 24) + 32 * 29
    packed = 2 * (4 * 7 * 32 + 7 * 48 + 5 * 32) + 7 * 29 + 4 * (2 * 6 + 1)
    assert f"{weights:,} ternary weights in {packed:,} bytes: {8 * packed / weights:.3f} bits each" in said
    assert f"{file.stat().st_size:,} bytes; in float32 its parameters take {4 * lm.config.param_count():,}" in said
    assert float(said.split()[-1]) < 1e-5, said  # whole numbers are exact; the sum in a scale may round differently

    model = load_ternary(file)
    assert model.config == lm.config
    kept = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
    for path, value in nnx.to_flat_state(nnx.state(lm, nnx.Param)):
        if path[-1] != "kernel":
            np.testing.assert_array_equal(kept[path][...], value[...], err_msg=str(path))
    logits = jax.jit(LM.__call__)
    tokens = jax.random.randint(jax.random.key(3), (2, 9), 0, 29)
    close(logits(model, tokens), logits(lm, tokens), "logits", 2e-2)  # a rounding to 8 bits may go the other way

    model.head.packed[...] = model.head.packed[...].at[0, 0].set(0)
    assert largest_difference(lm, model) > 1e-3


def test_what_cannot_be_exported_or_read_is_said(tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(UserError, match=r"text\.npz is no export of a ternary model"):
        load_ternary(tmp_path / "text.npz")
    dense = nnx.eval_shape(lambda: LM(toy_run().model, rngs=nnx.Rngs(0)))
    with pytest.raises(UserError, match="no ternary projections"):
        export_ternary(dense, tmp_path / "model.npz")
