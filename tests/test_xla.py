"""That vmapped models compute what single ones do: XLA's fused sums on a CPU did not (see ``experiments/xla.py``)."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from subquad.archs import LM, LMConfig
from subquad.layers import Mamba2Config


@pytest.mark.optimized
def test_four_models_at_once_are_each_alone():
    mixer = Mamba2Config(heads=1, head_dim=64, state_dim=27)
    config = LMConfig(64, dim=32, depth=2, pattern=(mixer,), embed_std=0.3)
    tokens = jax.random.randint(jax.random.key(1), (32, 32), 0, 64)
    graph = nnx.graphdef(nnx.eval_shape(lambda: LM(config, rngs=nnx.Rngs(0))))
    params = jax.vmap(lambda key: nnx.state(LM(config, rngs=nnx.Rngs(params=key))))(
        jax.random.split(jax.random.key(0), 4)
    )
    run = lambda params: nnx.merge(graph, params)(tokens)  # noqa: E731
    together, alone = jax.jit(jax.vmap(run))(params), jax.jit(run)
    for i in range(4):
        expected = alone(jax.tree.map(lambda p, i=i: p[i], params))
        error = jnp.abs(together[i] - expected).max() / jnp.abs(expected).max()
        assert error < 1e-5, f"model {i} of 4: {error:.1e}"
