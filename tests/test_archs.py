"""Every preset: its counts against the published ones, and that its tiny size trains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from subquad.archs import ARCHS, LM, LMConfig, preset
from subquad.layers import GatedDeltaNetConfig, SwiGLUConfig

SIZES = [(name, size) for name, arch in ARCHS.items() for size in arch.sizes]


def built(config: LMConfig) -> int:
    """The parameters of the real module, by shape."""
    lm = nnx.eval_shape(lambda: LM(config, rngs=nnx.Rngs(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(lm, nnx.Param)))


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_counts(name, size):
    config, published = preset(name, size), ARCHS[name].published.get(size)
    count = built(config)
    assert config.param_count() == count, f"{name} {size}: the config says {config.param_count()}, built {count}"
    if published is not None:
        assert abs(count / published - 1) < 0.01, f"{name} {size}: {count} parameters, published {published}"
    if size == "tiny":
        assert 0.9e6 < count < 1.1e6, f"{name}: tiny has {count} parameters"


def test_published_sizes_exist():
    for name, arch in ARCHS.items():
        assert arch.name == name
        assert "tiny" in arch.sizes
        assert arch.published.keys() <= arch.sizes.keys() - {"tiny"}, name


def test_gated_deltanet_counts_as_a_public_checkpoint_does():
    # huggingface.co/puigde/gated-deltanet-380M-15B-slimpajama, trained with flash-linear-attention, states this count.
    mixer = GatedDeltaNetConfig(heads=4, head_dim=256, expand_v=1)
    assert built(LMConfig(32_000, 1024, 21, (mixer,), SwiGLUConfig(2816), tied=False)) == 357_781_928


@pytest.mark.parametrize("name", ARCHS)
def test_tiny_trains(name):
    config = preset(name)
    tokens = jax.random.randint(jax.random.key(1), (2, 24), 0, config.vocab)

    lm = jax.jit(lambda key: LM(config, rngs=nnx.Rngs(params=key)))(jax.random.key(0))
    graph, params, constants = nnx.split(lm, nnx.Param, ...)

    def loss(params: nnx.State) -> jax.Array:
        logits = jax.nn.log_softmax(nnx.merge(graph, params, constants)(tokens[:, :-1]))
        return -jnp.mean(jnp.take_along_axis(logits, tokens[:, 1:, None], axis=-1))

    step = jax.jit(jax.value_and_grad(loss))
    before, grad = step(params)
    after, _ = step(jax.tree.map(lambda p, g: np.asarray(p) - 0.02 * np.asarray(g), params, grad))
    # Griffin starts 1.3 above chance: its scaled, tied embedding predicts the token that it has just read.
    assert before < np.log(config.vocab) + 2, f"{name}: the first loss is {before}, chance {np.log(config.vocab)}"
    assert after < before, f"{name}: a small step down the gradient raised the loss from {before} to {after}"
    for path, leaf in jax.tree.leaves_with_path(grad):
        assert np.isfinite(leaf).all(), f"{name}: the gradient of {jax.tree_util.keystr(path)} is not finite"
        assert np.any(np.asarray(leaf) != 0), f"{name}: {jax.tree_util.keystr(path)} has no gradient"


def test_a_misspelt_name_gets_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'mamba2'"):
        preset("mamba-2")
    with pytest.raises(ValueError, match="size of mamba2 '130M'; did you mean '130m'"):
        preset("mamba2", "130M")
