"""Every mixer of the table, small and with parameters moved off their initial values; what tests of layers share."""

import dataclasses
import functools

import definitions
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from definitions.common import DEPTH, DIM, LAYER
from flax import nnx
from subquad.layers import MIXERS, MixerConfig

T = 19
SMALL = {"head_dim": 16, "state_dim": 8, "gate_rank": 4, "slots": 8, "frequency": 1.0, "block_size": 2, "chosen": 3}
SMALL |= {"buckets": 4, "rounds": 2, "chunk": 2}  # few of what attention chooses from, so that it must choose
TOLERANCE = 1e-5
ERRORS: list[float] = []
"""Every relative error that ``close`` found, in order: ``accuracy.py`` asks which test found which."""


def small(kind: type[MixerConfig], **changes) -> MixerConfig:
    fields = {f.name for f in dataclasses.fields(kind)}
    return kind(**{**{k: v for k, v in SMALL.items() if k in fields}, **changes})


def switched(name: str) -> MixerConfig:
    """Everything that can be switched, the other way round: the short filter, every boolean, and shared heads."""
    kind = MIXERS[name]
    booleans = {f.name: not f.default for f in dataclasses.fields(kind) if isinstance(f.default, bool)}
    filters = {"short_conv": 0 if kind().short_conv else 3} if hasattr(kind(), "short_conv") else {}
    return small(kind, **{**filters, **booleans, **getattr(definitions.of(name), "SWITCHED", {})})


def variants(name: str) -> dict[str, MixerConfig]:
    """What else the mixer's definition names."""
    settings = getattr(definitions.of(name), "VARIANTS", {})
    return {f"{name}-{variant}": small(MIXERS[name], **changes) for variant, changes in settings.items()}


def chooses(name: str) -> bool:
    """Whether rounding may tip what a mixer chooses, and with that a token's whole output."""
    return getattr(definitions.of(mixer_of(name)), "CHOOSES", False)


def tolerance(name: str) -> float:
    """The largest error where an order of summation may differ: more for a mixer whose definition says why."""
    return getattr(definitions.of(mixer_of(name)), "TOLERANCE", TOLERANCE)


def mixer_of(name: str) -> str:
    """The mixer in the table of a name of ``CONFIGS``."""
    return name.split("-")[0]


DEFAULTS = {name: small(kind) for name, kind in MIXERS.items()}
CONFIGS = {
    **DEFAULTS,
    **{f"{name}-switched": switched(name) for name in MIXERS},
    **{name: config for mixer in MIXERS for name, config in variants(mixer).items()},
}
every_mixer = pytest.mark.parametrize("name", CONFIGS)
each_default = pytest.mark.parametrize("name", DEFAULTS)
each_other = pytest.mark.parametrize("name", [name for name in CONFIGS if name not in DEFAULTS])


def draw(*shape: int, seed: int = 0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def build(name: str, dtype=jnp.float32):
    return CONFIGS[name].build(DIM, layer=LAYER, depth=DEPTH, dtype=dtype, rngs=nnx.Rngs(0))


@functools.cache
def initial(name: str):
    """Parameters and constants as they start, drawn by one program rather than one for each operation."""
    return jax.jit(lambda: nnx.split(build(name), nnx.Param, ...)[1:])()


@functools.cache
def built(name: str, dtype=jnp.float32, seed: int = 0):
    """What the mixer is but for its parameters, and these, all of them perturbed."""
    graph, _, abstract = nnx.split(nnx.eval_shape(lambda: build(name, dtype)), nnx.Param, ...)
    params, constants = initial(name)
    constants = jax.tree.map(lambda like, x: jnp.asarray(np.asarray(x).astype(like.dtype)), abstract, constants)
    leaves, tree = jax.tree.flatten(params)
    noise, size = np.random.default_rng(seed), getattr(definitions.of(mixer_of(name)), "NOISE", 0.2)
    perturbed = [np.asarray(p) + size * noise.normal(size=p.shape).astype(np.float32) for p in leaves]
    return (graph, constants), tree.unflatten(map(jnp.asarray, perturbed))


def merge(graph, params):
    """The mixer of what ``built`` returned."""
    return nnx.merge(graph[0], params, graph[1])


def call(graph, params, x):
    return merge(graph, params)(x)


def outputs_and_gradients(graph, weights, params, x):
    """y, and the gradients of sum(weights * y) with respect to the parameters and x."""
    y, vjp = jax.vjp(functools.partial(call, graph), params, x)
    return y, vjp(weights.astype(y.dtype))


X, WEIGHTS = (np.asarray(draw(8, T, DIM, seed=seed)) for seed in (0, 1))


@functools.cache
def whole(name: str):
    """The compiled whole call with its gradients, of (weights, params, x), and what it returns for WEIGHTS and X.

    Most laws, and the definition, are about this one program: compiling is what they cost.
    """
    graph, params = built(name)
    run = jax.jit(functools.partial(outputs_and_gradients, graph))
    return run, run(WEIGHTS, params, X)


def close(got, want, what: str, tolerance: float = TOLERANCE, least: float = 1e-3) -> None:
    """Compares every array of two trees by norm of the difference over the norm, or over ``least`` if that is more."""
    assert jax.tree.structure(got) == jax.tree.structure(want), what
    for (path, a), b in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True):
        a, b = (np.asarray(z, np.complex128 if np.iscomplexobj(z) else np.float64) for z in (a, b))
        assert a.shape == b.shape, f"{what}{jax.tree_util.keystr(path)}: shape {a.shape}, expected {b.shape}"
        error = np.linalg.norm(a - b) / max(np.linalg.norm(b), least)
        ERRORS.append(float(error))
        assert error <= tolerance, f"{what}{jax.tree_util.keystr(path)}: relative error {error:.1e}"
