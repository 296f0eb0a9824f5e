"""Every mixer of the table, small and with parameters moved off their initial values; what tests of layers share."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from subquad.layers import MIXERS, MixerConfig

DIM, B, T = 48, 2, 19
SMALL = {"head_dim": 16, "state_dim": 8, "gate_rank": 4}
ALSO_SWITCHED = {"attention": {"kv_heads": 1}, "mamba2": {"groups": 2}}
TOLERANCE = 1e-5


def small(kind: type[MixerConfig], **changes) -> MixerConfig:
    fields = {f.name for f in dataclasses.fields(kind)}
    return kind(**{k: v for k, v in SMALL.items() if k in fields}, **changes)


def switched(name: str) -> MixerConfig:
    """Everything that can be switched, the other way round: the short filter, every boolean, and shared heads."""
    kind = MIXERS[name]
    booleans = {f.name: not f.default for f in dataclasses.fields(kind) if isinstance(f.default, bool)}
    return small(kind, short_conv=0 if kind().short_conv else 3, **booleans, **ALSO_SWITCHED.get(name, {}))


DEFAULTS = {name: small(kind) for name, kind in MIXERS.items()}
CONFIGS = {
    **DEFAULTS,
    **{f"{name}-switched": switched(name) for name in MIXERS},
    "attention-window": small(MIXERS["attention"], window=5),
}
every_mixer = pytest.mark.parametrize("name", CONFIGS)
each_default = pytest.mark.parametrize("name", DEFAULTS)

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""Compilation is most of the time of these tests; this halves it."""


def draw(*shape: int, seed: int = 0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


@functools.cache
def built(name: str, dtype=jnp.float32, seed: int = 0):
    """The mixer's structure and its parameters, all of them perturbed."""
    graph, params = nnx.split(CONFIGS[name].build(DIM, dtype=dtype, rngs=nnx.Rngs(seed)))
    leaves, tree = jax.tree.flatten(params)
    noise = np.random.default_rng(seed)
    return graph, tree.unflatten([p + 0.2 * noise.normal(size=p.shape).astype(np.float32) for p in leaves])


def close(got, want, what: str, tolerance: float = TOLERANCE) -> None:
    """Compares every array of two trees by relative norm."""
    assert jax.tree.structure(got) == jax.tree.structure(want), what
    for (path, a), b in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True):
        a, b = (np.asarray(z, np.float64) for z in (a, b))
        assert a.shape == b.shape, f"{what}{jax.tree_util.keystr(path)}: shape {a.shape}, expected {b.shape}"
        error = np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-3)
        assert error <= tolerance, f"{what}{jax.tree_util.keystr(path)}: relative error {error:.1e}"
