"""The laws of a token mixer. One parametrised file: a mixer earns them by its line in ``layers/table.py``.

Each mixer is tried small: as its config's defaults say, and with all that can be switched the other way round
(``mixers.py``). Parameters are moved away from their initial values, where zeros and ones would hide mistakes.
Compiling is what these tests cost, so the laws about one whole call share it.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxpr_flops import count
from mixers import (
    CONFIGS,
    DIM,
    SMALL,
    WEIGHTS,
    T,
    X,
    built,
    call,
    chooses,
    close,
    draw,
    each_default,
    each_other,
    every_mixer,
    merge,
    mixer_of,
    outputs_and_gradients,
    tolerance,
    whole,
)
from subquad.kernels import dispatch
from subquad.layers import MixerConfig
from subquad.layers.base import cache_bytes
from subquad.layers.table import GROWING

SHORT = 7  # tokens decoded to count operations: more than the window, whose cost then depends on them


PACKED = np.array(
    [
        [4] * 5 + [-1] + [2] + [7] * 6 + [-1] + [7] * 5,  # documents of 5, 1 and 11 tokens, the last with a gap
        [4] * 11 + [2, -1, -1] + [7] * 5,
        [-1] * 5 + [3] * 14,  # prompts, padded before, among and after their tokens
        [3] * 4 + [-1] * 3 + [3] * 5 + [-1] * 7,
    ]
)
VALID = PACKED >= 0
CUT = 9  # inside a document of each row, or its padding


def places() -> tuple[np.ndarray, np.ndarray]:
    """Of each token of PACKED, and then of the token after each row: its document, which is a row of X, and place."""
    documents, place, after, document = [], [], [], -1
    for row in PACKED:
        last = None
        for segment in row[row >= 0]:
            document, n = (document, n + 1) if segment == last else (document + 1, 0)
            last = segment
            documents.append(document)
            place.append(n)
        after.append((document, n + 1))
    return tuple(np.array([*found, *more]) for found, more in zip((documents, place), zip(*after)))  # noqa: B905


WHERE = places()


def stepwise(mixer, x, cache):
    """Every token by ``step``."""

    def one(cache, x_t):
        y_t, cache = mixer.step(x_t, cache)
        return cache, y_t

    cache, y = jax.lax.scan(one, cache, x.swapaxes(0, 1))
    return y.swapaxes(0, 1), cache


def pieces(mixer, x, cut, cache, ids=None):
    """``prefill`` in two pieces."""
    before, cache = mixer.prefill(x[:, :cut], cache, None if ids is None else ids[:, :cut])
    after, cache = mixer.prefill(x[:, cut:], cache, None if ids is None else ids[:, cut:])
    return jnp.concatenate([before, after], axis=1), cache


@every_mixer
def test_step_by_step_and_cut_prefill_equal_the_whole_call(name):
    graph, params = built(name)

    @jax.jit
    def run(params, x):
        mixer = merge(graph, params)
        empty = mixer.init_cache(len(x), T)
        return pieces(mixer, x, 8, empty), stepwise(mixer, x, empty)

    cut, steps = run(params, X)
    want = whole(name)[1][0]
    close(cut[0], want, f"{name}: cut prefill")
    close(steps[0], want, f"{name}: steps")
    close(steps[1], cut[1], f"{name}: cache after steps")


def packed_equal_separate(name, gradients):
    """Packed documents, whole and cut with a token decoded after; each is compared with a row of the whole call."""
    graph, params = built(name)
    weights = np.zeros_like(WEIGHTS)
    weights[WHERE] = WEIGHTS[WHERE]
    garbage = 10 * np.asarray(draw(*PACKED.shape, DIM, seed=3))

    def packed(params, x):
        mixer, given = merge(graph, params), x[WHERE]
        tokens, following = jnp.asarray(garbage).at[VALID].set(given[: -len(PACKED)]), given[-len(PACKED) :]
        y, cache = pieces(mixer, tokens, CUT, mixer.init_cache(len(PACKED), T + 1), jnp.asarray(PACKED))
        y_next, _ = mixer.step(following, cache)
        return jnp.concatenate([y[VALID], y_next]), mixer(tokens, jnp.asarray(PACKED))[VALID]

    def with_gradients(params, x):
        cut, vjp, uncut = jax.vjp(packed, params, x, has_aux=True)
        return (cut, uncut), vjp(jnp.asarray(weights[WHERE]))

    (cut, uncut), *found = jax.jit(with_gradients if gradients else lambda *args: (packed(*args),))(params, X)
    run, (y, _) = whole(name)
    cut, uncut, want = np.asarray(cut), np.asarray(uncut), np.asarray(y)[WHERE]
    for n in range(WHERE[0].max() + 1):
        of, at = WHERE[0] == n, WHERE[1][WHERE[0] == n]
        ours = of[: len(uncut)]
        # The whole call is as exact as its row: what an FFT rounds is relative to the row's largest values.
        least = float(np.linalg.norm(y[n]) * np.sqrt(of.sum() / T))
        close(cut[of], want[of], f"{name}: packed and cut, document {n} at {at}", least=least)
        close(uncut[ours], want[: len(uncut)][ours], f"{name}: packed, document {n}", least=least)
    if gradients:
        close(found[0], run(weights, params, X)[1], f"{name}: packed and cut, gradient of ", tolerance(name))


@each_default
def test_packed_documents_equal_separate_calls(name):
    packed_equal_separate(name, gradients=True)


@each_other
def test_what_is_switched_packs_too(name):
    packed_equal_separate(name, gradients=False)


@pytest.mark.exhaustive
@each_other
def test_gradients_of_what_is_switched_and_packed(name):
    packed_equal_separate(name, gradients=True)


@every_mixer
def test_future_tokens_change_nothing(name):
    run, (y, _) = whole(name)
    cut, x = 8, X.copy()
    x[:, cut:] = draw(8, T - cut, DIM, seed=2)
    other, y = (np.asarray(z) for z in (run(WEIGHTS, built(name)[1], x)[0], y))
    close(other[:, :cut], y[:, :cut], f"{name}: the past", 1e-6)
    changed = np.linalg.norm(other[:, cut:] - y[:, cut:], axis=-1) / np.linalg.norm(y[:, cut:], axis=-1)
    assert changed.min() > 1e-3, f"{name}: a token does not reach its own output"


@every_mixer
def test_bfloat16_is_near_float32_and_its_gradients_are_finite(name):
    graph, params = built(name, jnp.bfloat16)
    run = jax.jit(functools.partial(outputs_and_gradients, graph))
    y, gradients = run(WEIGHTS, params, X.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16, f"{name}: y is {y.dtype}"
    want = whole(name)[1][0]
    if chooses(name):  # rounding tips a choice for a few tokens, whose outputs are then others: most are near
        errors = np.linalg.norm(np.asarray(y, np.float32) - want, axis=-1) / np.linalg.norm(want, axis=-1)
        assert np.mean(errors < 2e-2) > 0.8, f"{name}: bfloat16: errors {np.sort(errors.ravel())[::-1][:40]}"
    else:
        close(y, want, f"{name}: bfloat16", 2e-2)
    for path, g in jax.tree.leaves_with_path(gradients):
        where, g = jax.tree_util.keystr(path), np.asarray(g, np.float32)
        assert np.isfinite(g).all(), f"{name}: gradient of {where} is not finite"
        assert np.any(g != 0), f"{name}: gradient of {where} is zero"


@each_default
def test_vmap_and_checkpoint_agree(name):
    """Two models by two halves of the inputs, of which a map over either leaves the other whole, recomputed."""
    graph, params = built(name)
    _, other = built(name, seed=1)
    run, one = whole(name)
    two = run(WEIGHTS, other, X)
    halves = lambda x: x.reshape(2, 4, T, DIM)  # noqa: E731

    @jax.jit
    def mapped(models, x):
        recomputed = jax.checkpoint(functools.partial(call, graph))
        y, vjp = jax.vjp(jax.vmap(jax.vmap(recomputed, (None, 0)), (0, None)), models, halves(x))
        return y, vjp(jnp.stack([halves(WEIGHTS)] * 2))

    y, (gradients, gradient) = mapped(jax.tree.map(lambda *leaves: np.stack(leaves), params, other), X)
    close(np.reshape(y, (2, *X.shape)), np.stack([one[0], two[0]]), f"{name}: vmap")
    want = jax.tree.map(lambda *leaves: np.stack(leaves), one[1][0], two[1][0])
    close(gradients, want, f"{name}: vmap and checkpoint, gradient of ", tolerance(name))
    gradient = np.reshape(gradient, X.shape)
    close(gradient, one[1][1] + two[1][1], f"{name}: vmap and checkpoint, gradient of x", tolerance(name))


@each_default
def test_sharded_over_eight_devices_equals_one(name):
    """Batch and parameters both spread: each parameter along its largest axis that 8 divides."""
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))

    def spread(p):
        axes = [axis for axis, size in enumerate(p.shape) if size % 8 == 0]
        axis = max(axes, key=lambda axis: p.shape[axis], default=None)
        spec = PartitionSpec(*("data" if a == axis else None for a in range(p.ndim)))
        return jax.device_put(np.asarray(p), NamedSharding(mesh, spec))

    rows = NamedSharding(mesh, PartitionSpec("data"))
    run, want = whole(name)
    got = run(jax.device_put(WEIGHTS, rows), jax.tree.map(spread, built(name)[1]), jax.device_put(X, rows))
    close(got, want, f"{name}: sharded", tolerance(name))


def published(config: MixerConfig) -> MixerConfig:
    """The same variant at the default sizes of what ``SMALL`` shrinks."""
    return dataclasses.replace(config, **{k: getattr(type(config)(), k) for k in SMALL if hasattr(config, k)})


@every_mixer
@pytest.mark.parametrize("dim", [192, 768])
def test_config_answers_for_the_built_module(name, dim, monkeypatch):
    """Parameters and bytes are exact. Operations are counted in decoding, token by token, by the ops' definitions."""
    config = published(CONFIGS[name])
    mixer = nnx.eval_shape(lambda: config.build(dim, rngs=nnx.Rngs(0)))
    params = sum(p.size for p in jax.tree.leaves(nnx.state(mixer, nnx.Param)))
    assert config.param_count(dim) == params, f"{name}: parameters"
    for length in (1, 4, T, 100):
        assert config.state_bytes(dim, length) == cache_bytes(config, dim, length), f"{name}: bytes at T = {length}"

    monkeypatch.setattr(dispatch, "PLATFORMS", {"cpu": ("reference",)})
    graph, state = nnx.split(mixer)
    token = jax.ShapeDtypeStruct((1, dim), jnp.float32)

    def decode(state, token, length):
        mixer = nnx.merge(graph, state)
        return mixer.step(token, mixer.init_cache(1, length))

    counted = np.mean([count(functools.partial(decode, length=t), state, token) for t in range(1, SHORT + 1)])
    ratio = config.flops_per_token(dim, SHORT) / counted
    assert abs(ratio - 1) < 0.01, f"{name}: flops_per_token is {ratio:.3f} times the count"


@every_mixer
def test_state_grows_only_where_the_table_says_so(name):
    config, kind = CONFIGS[name], mixer_of(name)
    if getattr(config, "window", None) is not None:
        config = dataclasses.replace(config, window=3)  # what it bounds is full after 10 tokens
    grows = config.state_bytes(DIM, 1000) > config.state_bytes(DIM, 10)
    bounded = kind == "attention" and config.window is not None
    assert grows == (kind in GROWING and not bounded), f"{name}: state grows: {grows}"
