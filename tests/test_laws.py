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
    B,
    T,
    built,
    chooses,
    close,
    draw,
    each_default,
    each_default_and_rarely_the_others,
    every_mixer,
    merge,
    mixer_of,
    quick_jit,
    tolerance,
)
from subquad.kernels import dispatch
from subquad.layers import MixerConfig
from subquad.layers.base import cache_bytes
from subquad.layers.table import GROWING

SHORT = 7  # tokens decoded to count operations: more than the window, whose cost then depends on them


def stepwise(mixer, x, cache):
    """Every token by ``step``."""

    def one(cache, x_t):
        y_t, cache = mixer.step(x_t, cache)
        return cache, y_t

    cache, y = jax.lax.scan(one, cache, x.swapaxes(0, 1))
    return y.swapaxes(0, 1), cache


@every_mixer
def test_step_by_step_and_cut_prefill_equal_the_whole_call(name):
    graph, params = built(name)

    @quick_jit
    def run(params, x):
        mixer = merge(graph, params)
        cache, parts = mixer.init_cache(B, T), []
        for piece in jnp.split(x, (1, 8), axis=1):
            y, cache = mixer.prefill(piece, cache)
            parts.append(y)
        return {
            "call": mixer(x),
            "prefill": mixer.prefill(x, mixer.init_cache(B, T)),
            "cut prefill": (jnp.concatenate(parts, axis=1), cache),
            "steps": stepwise(mixer, x, mixer.init_cache(B, T)),
        }

    out = run(params, draw(B, T, DIM))
    close(out["call"], out["prefill"][0], f"{name}: call")
    for what in ("cut prefill", "steps"):
        close(out[what], out["prefill"], f"{name}: {what}")


@every_mixer
def test_packed_documents_equal_separate_calls(name):
    """Two rows of documents of 5, 1 and 11 tokens in either order, with padding; then one token more."""
    graph, params = built(name)
    ids = jnp.asarray([[4] * 5 + [-1] + [2] + [7] * 6 + [-1] + [7] * 5, [4] * 11 + [2, -1, -1] + [7] * 5])
    where = {5: ((0, ids[0] == 4), (1, ids[1] == 7)), 1: ((0, ids[0] == 2), (1, ids[1] == 2))}
    where[11] = ((0, ids[0] == 7), (1, ids[1] == 4))
    x, x_next = draw(2, T, DIM), draw(2, DIM, seed=1)

    def take(y, n):
        return jnp.stack([y[row][np.asarray(mask)] for row, mask in where[n]])

    @quick_jit
    def run(params, x, x_next):
        mixer = merge(graph, params)
        alone = {n: mixer(jnp.concatenate([take(x, n), x_next], axis=1) if n > 1 else take(x, n)) for n in where}
        cache, parts = mixer.init_cache(2, T + 1), []
        for piece in (slice(0, 9), slice(9, T)):  # 9 is inside a document of each row
            y, cache = mixer.prefill(x[:, piece], cache, ids[:, piece])
            parts.append(y)
        after, _ = mixer.step(x_next[:, 0], cache)
        return alone, mixer(x, ids), jnp.concatenate(parts, axis=1), after

    alone, packed, cut, after = run(params, x, x_next[:, None])
    for n in where:
        close(take(packed, n), alone[n][:, :n], f"{name}: packed document of {n}")
        close(take(cut, n), alone[n][:, :n], f"{name}: document of {n}, packed and cut")
    close(after[0], alone[11][0, 11], f"{name}: the token after a document of 11")


@each_default_and_rarely_the_others
def test_padding_is_transparent(name):
    """Prompts of one length, padded before, after or among their tokens, cut in the middle, and a token decoded.

    Packed documents have padding too, so what is switched comes here with ``-m exhaustive`` only.
    """
    graph, params = built(name)
    rows, length = 3, T - 5
    valid = np.ones((rows, T), bool)
    valid[0, :5] = valid[1, length:] = valid[2, [0, 4, 5, 6, 12]] = False
    ids = jnp.where(valid, 3, -1)
    weights = draw(rows, length + 1, DIM, seed=2)

    @quick_jit
    def run(params, x, garbage):
        def plain(params):
            return merge(graph, params)(x)

        def padded(params):
            mixer = merge(graph, params)
            tokens = garbage.at[np.nonzero(valid)].set(x[:, :length].reshape(-1, DIM))
            cache, parts = mixer.init_cache(rows, length + 1), []
            for piece in (slice(0, 9), slice(9, T)):
                y, cache = mixer.prefill(tokens[:, piece], cache, ids[:, piece])
                parts.append(y)
            y = jnp.concatenate(parts, axis=1)[np.nonzero(valid)].reshape(rows, length, DIM)
            y_next, _ = mixer.step(x[:, length], cache)
            return jnp.concatenate([y, y_next[:, None]], axis=1)

        def outputs_and_gradients(call):
            y, vjp = jax.vjp(call, params)
            return y, vjp(weights)[0]

        return outputs_and_gradients(padded), outputs_and_gradients(plain)

    padded, plain = run(params, draw(rows, length + 1, DIM), 10 * draw(rows, T, DIM, seed=3))
    close(padded[0], plain[0], f"{name}: padded")
    close(padded[1], plain[1], f"{name}: padded, gradient of ")


def call(graph, params, x):
    return merge(graph, params)(x)


def outputs_and_gradients(graph, weights, params, x):
    """y, and the gradients of sum(weights * y) with respect to the parameters and x."""
    y, vjp = jax.vjp(functools.partial(call, graph), params, x)
    return y, vjp(weights.astype(y.dtype))


X, WEIGHTS = draw(8, T, DIM), draw(8, T, DIM, seed=1)


@functools.cache
def whole(name):
    """The compiled whole call, and its results at X."""
    graph, params = built(name)
    run = quick_jit(functools.partial(outputs_and_gradients, graph, WEIGHTS))
    return run, run(params, X)


@every_mixer
def test_future_tokens_change_nothing(name):
    run, (y, _) = whole(name)
    cut = 8
    other, _ = run(built(name)[1], X.at[:, cut:].set(draw(8, T - cut, DIM, seed=2)))
    close(other[:, :cut], y[:, :cut], f"{name}: the past", 1e-6)
    changed = np.linalg.norm(other[:, cut:] - y[:, cut:], axis=-1) / np.linalg.norm(y[:, cut:], axis=-1)
    assert changed.min() > 1e-3, f"{name}: a token does not reach its own output"


@every_mixer
def test_bfloat16_is_near_float32_and_its_gradients_are_finite(name):
    graph, params = built(name, jnp.bfloat16)
    run = quick_jit(functools.partial(outputs_and_gradients, graph, WEIGHTS))
    y, gradients = run(params, X.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16, f"{name}: y is {y.dtype}"
    want = whole(name)[1][0]
    if chooses(name):  # rounding tips a choice for a few tokens, whose outputs are then others: most are near
        errors = np.linalg.norm(y.astype(jnp.float32) - want, axis=-1) / np.linalg.norm(want, axis=-1)
        assert np.mean(errors < 2e-2) > 0.8, f"{name}: bfloat16: errors {np.sort(errors.ravel())[::-1][:40]}"
    else:
        close(y, want, f"{name}: bfloat16", 2e-2)
    for path, g in jax.tree.leaves_with_path(gradients):
        where = jax.tree_util.keystr(path)
        assert jnp.all(jnp.isfinite(g)), f"{name}: gradient of {where} is not finite"
        assert jnp.any(g != 0), f"{name}: gradient of {where} is zero"


@each_default
def test_vmap_and_checkpoint_agree(name):
    graph, params = built(name)
    _, other = built(name, seed=1)
    run, (y, gradients) = whole(name)
    y_other, _ = run(other, X)

    @quick_jit
    def mapped(params, other, x):
        one = functools.partial(call, graph)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), params, other)
        return jax.vmap(one, (None, 0))(params, x.reshape(2, 4, T, DIM)), jax.vmap(one, (0, None))(stacked, x)

    inputs, models = mapped(params, other, X)
    close(inputs.reshape(y.shape), y, f"{name}: vmap over inputs")
    close(models, jnp.stack([y, y_other]), f"{name}: vmap over parameters")

    @quick_jit
    def recomputed(params, x):
        _, vjp = jax.vjp(jax.checkpoint(functools.partial(call, graph)), params, x)
        return vjp(WEIGHTS)

    close(recomputed(params, X), gradients, f"{name}: checkpoint, gradient of ")


@each_default
def test_sharded_over_eight_devices_equals_one(name):
    """Batch and parameters both spread: each parameter along its largest axis that 8 divides."""
    graph, params = built(name)
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))

    def spread(p):
        axes = [axis for axis, size in enumerate(p.shape) if size % 8 == 0]
        axis = max(axes, key=lambda axis: p.shape[axis], default=None)
        spec = PartitionSpec(*("data" if a == axis else None for a in range(p.ndim)))
        return jax.device_put(p, NamedSharding(mesh, spec))

    rows = NamedSharding(mesh, PartitionSpec("data"))
    run = quick_jit(functools.partial(outputs_and_gradients, graph))
    got = run(jax.device_put(WEIGHTS, rows), jax.tree.map(spread, params), jax.device_put(X, rows))
    close(got, whole(name)[1], f"{name}: sharded", tolerance(name))


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
