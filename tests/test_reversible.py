"""Residual streams that the backward pass rebuilds: the function that the papers write, and its gradients."""

import dataclasses
import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from mixers import MIXERS, small
from subquad.archs import LM, LMConfig
from subquad.layers import AttentionConfig, GeluMLPConfig, HGRN2Config, MinGRUConfig, MixerConfig, RWKV7Config
from subquad.layers.residual import _plus

HYBRID = LMConfig(
    vocab=19,
    dim=16,
    depth=5,  # two periods and a tail
    pattern=(MinGRUConfig(short_conv=3), AttentionConfig(head_dim=8)),
    mlp=GeluMLPConfig(hidden=24),
    residual="reversible",
    tied=False,
    embed_std=0.5,
)
SIDE = dataclasses.replace(HYBRID, depth=6, pattern=(RWKV7Config(head_dim=8), MinGRUConfig()), mlp=None, tied=True)
SHARED = dataclasses.replace(HYBRID, depth=6, pattern=(HGRN2Config(head_dim=8),), mlp=None, tied=True)
CONFIGS = {
    "hybrid with a tail": HYBRID,
    "values handed to later layers": SIDE,
    "bounds that layers share": SHARED,
    "32 layers": dataclasses.replace(HYBRID, depth=32, pattern=(MinGRUConfig(),)),
    "32 layers by midpoint": dataclasses.replace(HYBRID, depth=32, pattern=(MinGRUConfig(),), residual="midpoint"),
}
IDS = jnp.array([[4] * 5 + [1] * 4 + [-1] * 3, [3] * 12])
TOKENS = jax.random.randint(jax.random.key(1), IDS.shape, 0, HYBRID.vocab)


def build(config: LMConfig, **kwargs) -> LM:
    return jax.jit(lambda: LM(config, rngs=nnx.Rngs(3), **kwargs))()


def published(lm: LM, tokens: jax.Array, ids: jax.Array | None, *, exact: bool = False) -> jax.Array:
    """The hidden states as the papers write them, differentiated as any other function; ``exact``: with exact sums."""
    config = lm.config
    step = 2 if config.residual == "midpoint" else 1
    x = lm.embedding[...][tokens]
    widths = {name: width for mixer in config.pattern for name, width in mixer.side(config.dim).items()}
    side = {name: jnp.zeros((*tokens.shape, width)) for name, width in widths.items()}

    def period(carry, blocks):
        x1, x2, side = carry
        for position, block in enumerate(blocks):
            block = lm._complete(block, position)
            y, _, side = block.mixer.prefill_side(block.norm(x2[0]), block.init_cache(len(tokens), 0), ids, side)
            x1, x2 = x2, plus(x1, step * y)
            if config.mlp is not None:
                x1, x2 = x2, plus(x1, step * block.mlp(block.mlp_norm(x2[0])))
        return (x1, x2, side), None

    plus = _plus if exact else lambda x, y: (x[0] + y, x[1])
    start = (x, jnp.zeros_like(x))  # with what rounding takes from it
    carry = (start, start, side)
    if lm.periods:
        carry, _ = jax.lax.scan(period, carry, tuple(lm.periods))
    (x1, _), (x2, _), _ = period(carry, tuple(lm.tail))[0]
    if config.residual == "midpoint":
        return lm.norm(x2)
    return lm.norm((x1 + x2) / 2 if config.tied else jnp.concatenate([x1, x2], axis=-1))


def errors(config: LMConfig, ids: jax.Array | None = IDS, *, exact: bool = False) -> dict[str, float]:
    """The relative errors of hidden states and of every gradient."""
    graph, params, constants = nnx.split(build(config), nnx.Param, ...)

    def both(params):
        def loss(params, hidden):
            lm = nnx.merge(graph, params, constants)
            h = hidden(lm, TOKENS, ids)
            return jnp.sum(jnp.where(IDS < 0, 0, jnp.sum(jnp.sin(lm.logits(h)), -1))), h

        return [
            jax.grad(loss, has_aux=True)(params, hidden)
            for hidden in (LM.hidden, functools.partial(published, exact=exact))
        ]

    (found, hidden), (expected, oracle) = jax.jit(both)(params)
    real = IDS >= 0
    pairs = [("hidden", hidden[real], oracle[real])]
    leaves = zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True)
    pairs += [(jax.tree_util.keystr(path), a, b) for (path, a), b in leaves]
    norm = lambda x: float(np.linalg.norm(np.asarray(x)))  # noqa: E731
    return {name: norm(a - b) / max(norm(b), 1e-3) for name, a, b in pairs}


STEEP = ["delta_product", "rwkv6", "slstm"]
"""The worst of the mixers whose gradients change by more than 1e-5 (rwkv6's by 4e-3) where parameters change by half of
their last bit, through 32 layers that add as much as the embedding: no two ways of summing a stream agree to 1e-5 then.
So the embedding is larger here, and what is stored is summed as exactly as what is rebuilt."""


@pytest.mark.parametrize("name", STEEP)
def test_gradients_of_steep_mixers(name):
    fields = {"head_dim": 8} if hasattr(MIXERS[name](), "head_dim") else {}
    changes = {"pattern": (small(MIXERS[name], **fields),), "mlp": None, "tied": True, "embed_std": 8.0}
    found = errors(dataclasses.replace(HYBRID, depth=32, **changes), exact=True)
    worst = max(found, key=lambda key: found[key] if np.isfinite(found[key]) else np.inf)
    assert found[worst] < 1e-5, f"{name}: {worst} is off by {found[worst]:.1e}"


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_are_those_of_the_same_function(name):
    found = errors(CONFIGS[name])
    worst = max(found, key=lambda key: found[key] if np.isfinite(found[key]) else np.inf)
    assert found[worst] < 1e-5, f"{name}: {worst} is off by {found[worst]:.1e}"


def test_decoding_runs_the_same_streams():
    lm = build(HYBRID)
    whole, cache, logits = jax.jit(LM.__call__)(lm, TOKENS), lm.init_cache(2, 12), []
    left, cache = jax.jit(LM.prefill)(lm, TOKENS[:, :9], cache)
    step = jax.jit(LM.step)
    for t in range(9, 12):
        y, cache = step(lm, TOKENS[:, t], cache)
        logits.append(y)
    np.testing.assert_allclose(jnp.concatenate([left, jnp.stack(logits, 1)], 1), whole, rtol=2e-5, atol=2e-5)


def test_checkpoint_changes_memory_only():
    def gradient(residual):
        lm = build(dataclasses.replace(HYBRID, depth=6, pattern=(MinGRUConfig(),), residual=residual))
        compiled = jax.jit(jax.grad(lambda lm: jnp.sum(lm(TOKENS) ** 2))).lower(lm).compile()
        plan = compiled.memory_analysis()
        assert plan is not None
        return compiled(lm), plan.temp_size_in_bytes

    (found, less), (expected, more) = gradient("checkpoint"), gradient("standard")
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert less < more


@dataclass(frozen=True)
class Widening(MixerConfig):
    """Returns twice the width."""

    def build(self, dim, *, layer=0, depth=1, dtype=jnp.float32, rngs):
        return lambda x: jnp.concatenate([x, x], axis=-1)


@dataclass(frozen=True)
class Counting(MinGRUConfig):
    """Hands something on, and does not say that only one layer writes it."""

    def side(self, dim):
        return {"count": 1}


def test_refusals():
    with pytest.raises(ValueError, match="needs layers that keep the width 16; Widening returns 32"):
        dataclasses.replace(HYBRID, pattern=(Widening(),))
    with pytest.raises(ValueError, match="cannot rebuild what Counting hands to later layers"):
        dataclasses.replace(HYBRID, pattern=(Counting(),))
    dataclasses.replace(HYBRID, pattern=(Widening(), Counting()), residual="standard")
