"""The language model: how it decodes, packs, stacks and draws, whatever its mixers are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from subquad.archs import LM, LMConfig
from subquad.layers import (
    AttentionConfig,
    GeluMLPConfig,
    GLAConfig,
    HGRN2Config,
    MinGRUConfig,
    SwiGLUConfig,
    ZambaConfig,
)

# Two periods of two mixers and a tail of one: a recurrence, and a cache that grows.
CONFIG = LMConfig(
    vocab=19,
    dim=16,
    depth=5,
    pattern=(MinGRUConfig(expand=1.5, short_conv=3), AttentionConfig(head_dim=8, kv_heads=1)),
    mlp=GeluMLPConfig(hidden=24),
    embed_std=0.5,
)


def build(config: LMConfig, key: jax.Array, **kwargs) -> LM:
    return LM(config, rngs=nnx.Rngs(params=key), **kwargs)


# Compiling is most of what these tests cost: one program for each shape, shared.
KEY = jax.random.key(3)
make = jax.jit(build, static_argnums=0, static_argnames="dtype")
call = jax.jit(LM.__call__)
prefill = jax.jit(LM.prefill)
step = jax.jit(LM.step)


def tokens(shape, seed=0, vocab=CONFIG.vocab):
    return jax.random.randint(jax.random.key(seed), shape, 0, vocab)


def close(actual, expected, what: str, rtol: float = 2e-5):
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert np.isfinite(actual).all(), f"{what}: not finite"
    error = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
    assert error <= rtol, f"{what}: relative error {error:.2e}"


@pytest.fixture(scope="module")
def lm() -> LM:
    return make(CONFIG, KEY)


def test_steps_are_the_whole_call(lm):
    x = tokens((2, 9))
    cache, logits = lm.init_cache(2, 9), []
    for t in range(9):
        y, cache = step(lm, x[:, t], cache)
        logits.append(y)
    close(jnp.stack(logits, axis=1), call(lm, x), "step by step")


@pytest.mark.parametrize("cut", [1, 6])
def test_prefill_cut_anywhere_is_the_whole_call(lm, cut):
    x = tokens((2, 9), seed=1)
    left, cache = prefill(lm, x[:, :cut], lm.init_cache(2, 9))
    right, _ = prefill(lm, x[:, cut:], cache)
    close(jnp.concatenate([left, right], axis=1), call(lm, x), f"prefill cut at {cut}")


def test_packed_documents_are_separate_calls(lm):
    documents = [tokens((1, n), seed=n) for n in (5, 1, 5)]
    ids = jnp.repeat(jnp.array([7, 2, 3]), np.array([5, 1, 5]))[None]
    packed = call(lm, jnp.concatenate(documents, axis=1), ids)
    close(packed, jnp.concatenate([call(lm, x) for x in documents], axis=1), "packed documents")


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_holds_the_state(lm, side):
    x = tokens((1, 8), seed=4)
    pad = [(0, 0), (3, 0) if side == "left" else (0, 3)]
    ids = jnp.pad(jnp.zeros((1, 5), jnp.int32), pad, constant_values=-1)
    logits, cache = prefill(lm, jnp.pad(x[:, :5], pad), lm.init_cache(1, 8), ids)
    expected = call(lm, x)
    close(logits[ids >= 0], expected[0, :5], f"prompt padded on the {side}")
    for t in range(5, 8):
        logits, cache = step(lm, x[:, t], cache)
        close(logits, expected[:, t], f"token {t} after a prompt padded on the {side}")


@pytest.mark.parametrize("depth", [CONFIG.depth, 3])  # scanned, and in a loop
def test_the_trunk_is_its_blocks_one_after_another(depth):
    """Its second mixer's layers share parameters."""
    pattern = (CONFIG.pattern[0], HGRN2Config(head_dim=8))
    lm = make(dataclasses.replace(CONFIG, depth=depth, pattern=pattern), KEY)
    x, weights = tokens((2, 6), seed=6), jax.random.normal(jax.random.key(1), (2, 6, CONFIG.vocab))

    graph, params, constants = nnx.split(lm, nnx.Param, ...)

    def unrolled(params):
        lm = nnx.merge(graph, params, constants)
        hidden = lm.embedding[...][x]
        for layer in range(depth):
            hidden = lm.block(layer)(hidden)
        logits = lm.logits(lm.norm(hidden))
        return jnp.sum(weights * logits), logits

    def scanned(params):
        logits = nnx.merge(graph, params, constants)(x)
        return jnp.sum(weights * logits), logits

    (_, found), gradient = jax.jit(jax.value_and_grad(scanned, has_aux=True))(params)
    (_, expected), oracle = jax.jit(jax.value_and_grad(unrolled, has_aux=True))(params)
    close(found, expected, "unrolled")
    for (path, g), e in zip(jax.tree.leaves_with_path(gradient), jax.tree.leaves(oracle), strict=True):
        close(g, e, f"gradient of {jax.tree_util.keystr(path)}", rtol=1e-4)
    with pytest.raises(ValueError, match=f"no block {depth}"):
        lm.block(depth)


CONFIGS = {
    "tail": CONFIG,
    "whole periods": dataclasses.replace(CONFIG, depth=4, tied=False),
    "less than a period": dataclasses.replace(CONFIG, depth=1, norm="layer"),
    "no channel mixer": dataclasses.replace(CONFIG, mlp=None),
    "layers that share": dataclasses.replace(CONFIG, pattern=(HGRN2Config(head_dim=8), ZambaConfig(), MinGRUConfig())),
    "one mixer": dataclasses.replace(CONFIG, pattern=(GLAConfig(head_dim=8),), mlp=SwiGLUConfig()),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_config_counts_what_is_built(name):
    config = CONFIGS[name]
    lm = nnx.eval_shape(lambda: build(config, KEY))
    built = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(lm, nnx.Param)))
    assert config.param_count() == built
    heads = [lm.embedding] + ([] if config.tied else [lm.head.kernel])
    assert config.embedding_params() == sum(leaf.size for leaf in heads)
    cache = jax.eval_shape(lambda: build(config, KEY).init_cache(1, 11))
    assert config.state_bytes(11) == sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache))


def test_flops_are_those_of_mixers_channel_mixers_and_head():
    recurrent, attention = CONFIG.pattern
    mlp = GeluMLPConfig(hidden=24).flops_per_token(16)
    expected = 3 * recurrent.flops_per_token(16, 64) + 2 * attention.flops_per_token(16, 64) + 5 * mlp + 2 * 16 * 19
    assert CONFIG.flops_per_token(64) == expected


def draws(config: LMConfig) -> dict[str, jax.Array]:
    """Every parameter of every block by name, and those outside the blocks."""
    lm = make(config, KEY)
    trees = {f"block {i}": lm.block(i) for i in range(config.depth)} | {"embedding": lm.embedding, "head": lm.head}
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(trees)}


CHANGES = {
    "deeper, with a head": {"depth": 7, "tied": False},
    "no channel mixer": {"mlp": None},
    "another mixer in the pattern": {"pattern": (CONFIG.pattern[0], GLAConfig(head_dim=8))},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_elsewhere_moves_no_draw(name):
    before, after = draws(CONFIG), draws(dataclasses.replace(CONFIG, **CHANGES[name]))
    other = {key for key in before if "block 1" in key or "block 3" in key} if name.startswith("another") else set()
    shared = (before.keys() & after.keys()) - {key for key in other if "mixer" in key}
    assert len(shared) >= 20, f"{name}: too few parameters in common"
    for key in shared:
        np.testing.assert_array_equal(before[key], after[key], err_msg=f"{name}: {key}")


def test_no_two_matrices_are_drawn_alike():
    kernels = [leaf.ravel()[:8] for key, leaf in draws(CONFIG).items() if leaf.ndim > 1 and "norm" not in key]
    assert len(kernels) > 20
    assert len(np.unique(np.stack(kernels), axis=0)) == len(kernels)


def test_seeds_under_vmap_are_the_models_built_one_by_one():
    config = dataclasses.replace(CONFIG, pattern=(MinGRUConfig(),), mlp=None)
    x, keys = tokens((2, 9), seed=8), jax.random.split(jax.random.key(5))
    graphdef, _ = nnx.split(make(config, KEY))
    params = jax.jit(jax.vmap(lambda key: nnx.state(build(config, key))))(keys)
    both = jax.jit(jax.vmap(lambda p: nnx.merge(graphdef, p)(x)))(params)
    for i, key in enumerate(keys):
        close(both[i], call(make(config, key), x), f"seed {i}")


def test_tracing_does_not_grow_with_depth():
    def sizes(depth: int) -> list[int]:
        """The lengths of the programs that build, run and differentiate a model, in characters."""
        config = dataclasses.replace(CONFIG, depth=depth)
        lm, x = nnx.eval_shape(lambda: build(config, KEY)), tokens((1, 4))
        return [
            len(str(jax.make_jaxpr(lambda key: nnx.state(build(config, key)))(KEY))),
            len(str(jax.make_jaxpr(lambda lm: lm(x))(lm))),
            len(str(jax.make_jaxpr(jax.grad(lambda lm: lm(x).sum()))(lm))),
        ]

    for what, shallow, deep in zip(["building", "running", "differentiating"], sizes(8), sizes(40), strict=True):
        assert deep < 1.02 * shallow, f"{what}: {shallow} characters at depth 8, {deep} at depth 40"


def test_bfloat16_computes_but_parameters_and_logits_are_float32():
    x, half = tokens((2, 9), seed=9), make(CONFIG, KEY, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype("float32")}
    logits, exact = call(half, x), call(make(CONFIG, KEY), x)
    assert logits.dtype == jnp.float32
    close(logits, exact, "bfloat16", rtol=3e-2)
    assert np.abs(np.asarray(logits - exact)).max() > 1e-4, "bfloat16 computed in float32"


def test_embedding_scale_and_soft_cap():
    config = dataclasses.replace(CONFIG, depth=1, scale_embedding=True, soft_cap=0.7)
    lm, x = make(config, KEY), tokens((1, 5), seed=10)
    hidden = lm.block(0)(lm.embedding[...][x] * 4.0)
    expected = 0.7 * jnp.tanh(jnp.einsum("btd,vd->btv", lm.norm(hidden), lm.embedding[...]) / 0.7)
    close(call(lm, x), expected, "scaled and capped")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab", 0), ("dim", 16.0), ("depth", True), ("pattern", ()), ("pattern", [MinGRUConfig()]),
        ("pattern", (GeluMLPConfig(),)), ("mlp", MinGRUConfig()), ("norm", "batch"), ("residual", "hyper"),
        ("embed_std", 0.0), ("soft_cap", -1.0),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(field, value):
    config = object.__new__(LMConfig)  # past the type checks that the tests run under, and a user does not
    for name in (f.name for f in dataclasses.fields(LMConfig)):
        object.__setattr__(config, name, value if name == field else getattr(CONFIG, name))
    with pytest.raises(ValueError, match=f"LMConfig: {field}"):
        config.__post_init__()
