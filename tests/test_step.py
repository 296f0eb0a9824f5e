"""The compiled step: its loss, its update, its accumulation, what it does with a step that is not finite."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from subquad.archs.lm import LM
from subquad.experiments import optim, step
from subquad.experiments.config import OptimConfig, RunConfig
from subquad.experiments.data.base import Batch
from subquad.experiments.evaluate import evaluate
from subquad.experiments.step import program
from subquad.experiments.tree import flatten
from toy import HYBRID, toy_run


def batches(run: RunConfig, start: int = 0, count: int | None = None) -> Batch:
    return run.data.build().train(run.order, start, count or run.chunk_steps, run.batch)


def host(tree) -> dict[str, np.ndarray]:
    return {name: np.array(leaf) for name, leaf in flatten(tree).items()}


def one_step(run: RunConfig, batch: Batch, lr: float = 1e-2):
    """Parameters before, state after and metrics of a chunk of these batches."""
    functions = program(run)
    state = functions.init(np.uint32(run.seed))
    before = host(state.params)
    return before, *functions.chunk(state, batch, np.float32(lr))


def test_loss_is_the_weighted_mean_cross_entropy():
    run = toy_run()
    batch = Batch(*(x[0] for x in batches(run)))
    loss, _ = jax.jit(program(run).gradients)(program(run).init(np.uint32(3)), batch)
    logits = np.asarray(LM(run.model, rngs=nnx.Rngs(jax.random.key(3)))(jnp.asarray(batch.tokens)), np.float64)
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    picked = np.take_along_axis(logp, batch.targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(loss, -(picked * batch.weights).sum() / batch.weights.sum(), rtol=1e-5)


def test_the_loss_of_a_long_row_is_summed_over_pieces(monkeypatch):
    run = toy_run(model={"depth": 1})
    batch = Batch(*(x[0] for x in batches(run)))
    results = []
    for piece in (5, 8192):
        monkeypatch.setattr(step, "LOSS_PIECE", piece)
        functions = step.Program(run.model, run.optim, 1, 1, "float32", 1, 1, False)
        results.append(jax.jit(functions.gradients)(functions.init(np.uint32(3)), batch))
    assert batch.tokens.shape[1] % 5, "the last piece must be padded for this test to see it"
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *results)


def test_one_update_is_adamw_by_hand():
    """Clipped Adam from zero moments, and decay that the learning rate does not scale, on matrices alone."""
    config = OptimConfig(weight_decay=0.03, clip=0.7, warmup=0.25, eps=1e-3)
    run = toy_run(optim=dataclasses.asdict(config), steps=40, chunk=1, model={"norm": "layer"})
    batch = batches(run)
    functions = program(run)
    state = functions.init(np.uint32(0))
    _, grads = jax.jit(functions.gradients)(state, Batch(*(x[0] for x in batch)))
    grads = host(grads)
    before, state, metrics = one_step(run, batch, lr=0.02)
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads.values()))
    np.testing.assert_allclose(metrics.grad_norm[0], norm, rtol=1e-5)
    assert norm > config.clip, "the clip must bite for this test to see it"
    factor = 1 / (0.25 * 40)
    decayed = set()
    for name, after in host(state.params).items():
        g = grads[name] * config.clip / norm
        mean, square = (1 - config.b1) * g / (1 - config.b1), (1 - config.b2) * g**2 / (1 - config.b2)
        matrix = name.split("/")[-1] in ("kernel", "embedding")
        decay = 0.03 * before[name] if matrix else 0
        want = before[name] - factor * (0.02 * mean / (np.sqrt(square) + config.eps) + decay)
        np.testing.assert_allclose(after, want, rtol=2e-5, atol=1e-8, err_msg=name)
        decayed |= {name} if matrix else set()
    stacked = {n: v.ndim for n, v in before.items() if n.startswith("periods") and n not in decayed}
    assert 2 in stacked.values(), "no stacked vector that its rank could pass off as a matrix"
    assert len(decayed) >= 4
    np.testing.assert_allclose(metrics.lr[0], factor * 0.02, rtol=1e-6)


def test_schedules():
    at = lambda config, step: float(optim.schedule(config, 100, jnp.int32(step)))  # noqa: E731
    cosine = OptimConfig(warmup=0.1, final=0.2)
    wsd = OptimConfig(schedule="wsd", warmup=0.1, decay=0.4, final=0.2)
    for config in (cosine, wsd):
        np.testing.assert_allclose([at(config, s) for s in (0, 4, 9)], [0.1, 0.5, 1.0], rtol=1e-6)
        np.testing.assert_allclose(at(config, 99), 0.2, rtol=1e-5)
    np.testing.assert_allclose(at(cosine, 54), 0.6, rtol=1e-5)
    np.testing.assert_allclose([at(wsd, s) for s in (30, 59, 79)], [1.0, 1.0, 0.6], rtol=1e-6)
    np.testing.assert_allclose(at(OptimConfig(warmup=0.0), 0), np.cos(np.pi / 200) ** 2, rtol=1e-6)


def test_accumulation_divides_once():
    """Micro-batches of unequal weight: the gradient is the whole batch's, not the mean of theirs."""
    whole, cut = toy_run(chunk=1), toy_run(chunk=1, accumulate=4)
    batch = batches(whole)
    batch.weights[:, ::4] = 0  # one micro-batch has no weight at all
    batch.weights[:, 1::4] *= 7
    _, state, metrics = one_step(whole, batch)
    _, state_cut, metrics_cut = one_step(cut, batch)
    np.testing.assert_allclose(metrics_cut.loss, metrics.loss, rtol=1e-6)
    np.testing.assert_allclose(metrics_cut.grad_norm, metrics.grad_norm, rtol=1e-5)
    want = host(state.optimizer)
    for name, got in host(state_cut.optimizer).items():
        np.testing.assert_allclose(got, want[name], rtol=1e-3, atol=1e-7, err_msg=name)


def test_a_batch_without_weight_changes_no_gradient():
    run = toy_run(chunk=1)
    batch = batches(run)
    batch.weights[:] = 0
    _, state, metrics = one_step(run, batch)
    assert float(metrics.loss[0]) == 0
    assert int(state.bad_steps) == 0


def test_a_step_that_is_not_finite_changes_nothing_but_the_counts():
    run = toy_run()
    batch = batches(run)
    clean = Batch(*(x.copy() for x in batch))
    batch.weights[1] = np.nan
    batch.weights[2] = np.inf
    _, state, metrics = one_step(run, batch)
    assert np.asarray(metrics.bad_steps).tolist() == [0, 1, 2, 2, 2]
    assert np.asarray(metrics.bad_run).tolist() == [0, 1, 2, 0, 0]
    assert (int(state.step), int(state.bad_steps)) == (5, 2)
    assert int(state.optimizer[1].count) == 3
    assert all(np.isfinite(leaf).all() for leaf in host(state).values())

    first = toy_run(chunk=1)
    after_one = one_step(first, Batch(*(x[:1] for x in clean)))[1]
    poisoned = Batch(*(x[1:2] for x in batch))
    want = host((after_one.params, after_one.optimizer))
    after_two, _ = program(first).chunk(after_one, poisoned, np.float32(1e-2))
    for name, got in host((after_two.params, after_two.optimizer)).items():
        np.testing.assert_array_equal(got, want[name], err_msg=name)


def test_one_executable_serves_every_learning_rate_and_seed():
    """Nothing is traced again, let alone compiled, and both still have their effect."""
    run = toy_run()
    one_step(run, batches(run))
    traced = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: traced.append(event))
    other = toy_run(seed=5, optim={"lr": 3e-3})
    before, _, metrics = one_step(other, batches(other), lr=3e-3)
    compiled = [event for event in traced if "compile" in event or "trace" in event]
    assert compiled == []
    first, _, metrics_first = one_step(run, batches(run))
    assert not np.array_equal(before["embedding"], first["embedding"])
    np.testing.assert_allclose(metrics.lr, 0.3 * np.asarray(metrics_first.lr), rtol=1e-5)


def test_bfloat16_computes_low_and_keeps_high():
    run, low = toy_run(), toy_run(dtype="bfloat16")
    _, state, metrics = one_step(low, batches(low))
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, state.optimizer[1].mu))} == {jnp.dtype("float32")}
    text = str(jax.make_jaxpr(program(low).gradients)(state, Batch(*(x[0] for x in batches(low)))))
    assert "bf16" in text
    reference = one_step(run, batches(run))[2].loss
    assert not np.array_equal(metrics.loss, reference)
    np.testing.assert_allclose(metrics.loss, reference, rtol=2e-2)


@pytest.mark.parametrize("metric", ["accuracy", "scaled_accuracy", "bits_per_byte"])
def test_evaluation_counts_every_row_once(metric):
    """37 rows in batches of 8: the padding must not count."""
    run = toy_run(data={"metric": metric})
    functions, source = program(run), run.data.build()
    state = functions.init(np.uint32(1))
    got = evaluate(functions, state, source, "test", run.batch)
    rows = source.evaluation("test")
    logits = np.asarray(LM(run.model, rngs=nnx.Rngs(jax.random.key(1)))(jnp.asarray(rows.tokens)), np.float64)
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    total = -(np.take_along_axis(logp, rows.targets[..., None], -1)[..., 0] * rows.weights).sum()
    right = ((logits.argmax(-1) == rows.targets) * rows.weights).sum() / rows.weights.sum()
    np.testing.assert_allclose(got["loss"], total / rows.weights.sum(), rtol=1e-5)
    bits = total / np.log(2) / source.evaluation_bytes("test")
    want = {"accuracy": right, "scaled_accuracy": (right - 0.25) / 0.75, "bits_per_byte": bits}
    np.testing.assert_allclose(got[metric], want[metric], rtol=1e-5)


def on_eight(**changes) -> RunConfig:
    return toy_run(batch=16, chunk=20, model={"dim": 64, "depth": 4, "pattern": HYBRID}, **changes)


def test_fsdp_holds_an_eighth_per_device():
    run = on_eight(devices=8)
    state = program(run).init(np.uint32(0))
    leaves = jax.tree.leaves((state.params, state.optimizer))
    total = sum(leaf.nbytes for leaf in leaves)
    for device in jax.devices():
        held = sum(s.data.nbytes for leaf in leaves for s in leaf.addressable_shards if s.device == device)
        assert held <= 1.1 * total / 8, f"{device} holds {held} of {total} bytes, {8 * held / total:.3f} of its share"
    for name, leaf in flatten(state.params).items():
        if name.startswith("periods"):
            assert not leaf.sharding.spec or leaf.sharding.spec[0] is None, f"{name} is sharded along the scanned axis"


@pytest.mark.parametrize("fsdp", [True, False])
def test_eight_devices_equal_one(fsdp):
    one, eight = on_eight(), on_eight(devices=8, fsdp=fsdp)
    want, got = (one_step(run, batches(run), lr=1e-3)[2] for run in (one, eight))
    np.testing.assert_allclose(got.loss, want.loss, rtol=0, atol=1e-5)
    assert want.loss[-1] < want.loss[0] - 0.1, "nothing was learnt that could have gone wrong"


def test_accumulation_over_devices():
    one, eight = on_eight(), on_eight(devices=8, accumulate=2)
    want, got = (one_step(run, batches(run), lr=1e-3)[2] for run in (one, eight))
    np.testing.assert_allclose(got.loss, want.loss, rtol=0, atol=1e-5)
