"""Every mixer against the equations of its paper, written out token by token in float64 NumPy, and what starts how."""

import types

import definitions
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from definitions.common import DEPTH, DIM, exact_gelu, floors, gelu, sigmoid, silu, softplus
from flax import nnx
from mixers import CONFIGS, X, built, close, draw, every_mixer, mixer_of, whole
from subquad.archs import LM, LMConfig
from subquad.layers import (
    CHANNEL_MIXERS,
    AttentionConfig,
    BigBirdConfig,
    DSAConfig,
    GatedDeltaNetConfig,
    GeluMLPConfig,
    GLAConfig,
    HGRN2Config,
    HGRNConfig,
    LightningConfig,
    LinearAttentionConfig,
    LongformerConfig,
    LRUConfig,
    Mamba2Config,
    MambaConfig,
    MoBAConfig,
    NSAConfig,
    ParallelConfig,
    ReformerConfig,
    RGLRUConfig,
    RWKV4Config,
    RWKV6ChannelConfig,
    RWKV6Config,
    S4DConfig,
    S5Config,
    SwiGLUConfig,
    ZambaConfig,
)
from subquad.layers.rg_lru import bounded_root

LENGTH = 11


def named(params):
    """Parameters as float64 arrays under their attribute names."""
    if isinstance(params, dict):
        return types.SimpleNamespace(**{k: named(v) for k, v in params.items()})
    return np.asarray(params, np.float64)


@every_mixer
def test_mixer_computes_its_papers_equations(name):
    got, rows = whole(name)[1][0][:2], X[:2].astype(np.float64)
    config, arrays = CONFIGS[name], named(nnx.to_pure_dict(built(name)[1]))
    definition = definitions.of(mixer_of(name)).definition
    close(got, np.stack([definition(config, arrays, row) for row in rows]), name)


CHANNEL = {
    "swiglu": SwiGLUConfig(),
    "gelu_mlp": GeluMLPConfig(),
    "gelu_mlp-gated": GeluMLPConfig(gated=True, hidden=40),
    "gelu_mlp-bias": GeluMLPConfig(bias=True),
    "gelu_mlp-gated-bias": GeluMLPConfig(gated=True, bias=True),
    "gelu_mlp-exact": GeluMLPConfig(exact=True),
    "gelu_mlp-gated-exact": GeluMLPConfig(gated=True, exact=True),
}


def test_every_channel_mixer_is_tested():
    assert {type(config) for config in CHANNEL.values()} == set(CHANNEL_MIXERS.values())


@pytest.mark.parametrize("name", CHANNEL)
def test_channel_mixer(name):
    config = CHANNEL[name]
    mixer = config.build(DIM, rngs=nnx.Rngs(0))
    graph, params = nnx.split(mixer)
    params = jax.tree.map(lambda p: p + 0.1 * draw(*p.shape), params)
    assert config.param_count(DIM) == sum(p.size for p in jax.tree.leaves(params)), "parameters"
    matrices = sum(p.size for p in jax.tree.leaves(params) if p.ndim == 2)
    assert config.flops_per_token(DIM) == 2 * matrices, "operations"

    p, x = named(nnx.to_pure_dict(params)), draw(2, LENGTH, DIM)
    bias = lambda dense: getattr(dense, "bias", 0)  # noqa: E731
    up = np.asarray(x, np.float64) @ p.up.kernel + bias(p.up)
    act = silu if name == "swiglu" else exact_gelu if config.exact else gelu
    hidden = up if not (name == "swiglu" or config.gated) else None
    if hidden is None:
        gate, value = np.split(up, 2, axis=-1)
        hidden = act(gate) * value
    else:
        hidden = act(hidden)
    close(nnx.merge(graph, params)(x), hidden @ p.down.kernel + bias(p.down), name)


@pytest.mark.parametrize("name", CHANNEL)
def test_channel_mixer_in_bfloat16(name):
    x = draw(2, LENGTH, DIM)
    whole, half = (CHANNEL[name].build(DIM, dtype=dtype, rngs=nnx.Rngs(0)) for dtype in (jnp.float32, jnp.bfloat16))
    y = half(x.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    close(y, whole(x), f"{name}: bfloat16", 2e-2)


@pytest.mark.parametrize("kind", [Mamba2Config, GatedDeltaNetConfig])
def test_decays_and_steps_start_where_the_papers_say(kind):
    mixer = kind(heads=500, head_dim=1).build(8, rngs=nnx.Rngs(3))
    rate, dt = np.exp(mixer.A_log[...]), softplus(np.asarray(mixer.dt_bias[...]))
    assert 0 < rate.min() < 8 < rate.max() <= 16, f"exp(A_log) in [{rate.min()}, {rate.max()}]"
    assert 9e-4 < dt.min() < 0.01 < dt.max() < 0.11, f"softplus(dt_bias) in [{dt.min()}, {dt.max()}]"


def test_mamba_starts_at_the_real_diagonal():
    mixer = MambaConfig(state_dim=5).build(256, rngs=nnx.Rngs(3))
    np.testing.assert_allclose(np.exp(mixer.A_log[...]), np.tile(np.arange(1, 6), (512, 1)), rtol=1e-6)
    dt = softplus(np.asarray(mixer.dt_bias[...]))
    assert 9e-4 < dt.min() < 0.01 < dt.max() < 0.11, f"softplus(dt_bias) in [{dt.min()}, {dt.max()}]"


def test_s5_starts_at_the_eigenvalues_of_hippo():
    """HiPPO-LegS plus the rank-1 term that makes it normal, as in the paper's appendix."""
    mixer = S5Config(state_dim=8, blocks=2).build(16, rngs=nnx.Rngs(3))
    n = np.arange(8)
    root = np.sqrt(2 * n + 1)
    hippo = -np.tril(np.outer(root, root), -1) - np.diag(n + 1)
    eigenvalues = np.linalg.eigvals(hippo + np.outer(root, root) / 2)
    positive = np.sort(eigenvalues[eigenvalues.imag > 0].imag)
    np.testing.assert_allclose(eigenvalues.real, -0.5, atol=1e-9)
    np.testing.assert_allclose(mixer.imag[...], np.tile(positive, 2), rtol=1e-5)
    np.testing.assert_allclose(mixer.real[...], -0.5)


def test_lru_starts_on_the_ring_with_a_state_of_unit_gain():
    a, scale = LRUConfig(state_dim=1000).build(8, rngs=nnx.Rngs(3)).decay()
    radius = np.abs(np.asarray(a))
    assert 0.9 <= radius.min() < 0.91, radius.min()
    assert 0.995 < radius.max() <= 0.9991, radius.max()
    np.testing.assert_allclose(scale**2, 1 - radius**2, rtol=1e-3)


def test_s4d_starts_at_the_linear_frequencies():
    mixer = S4DConfig(state_dim=8).build(300, rngs=nnx.Rngs(3))
    np.testing.assert_allclose(mixer.ssm.imag[...], np.tile(np.pi * np.arange(4), (300, 1)), rtol=1e-6)
    np.testing.assert_allclose(np.exp(mixer.ssm.log_rate[...]), 0.5, rtol=1e-6)
    dt = np.exp(mixer.ssm.log_dt[...])
    assert 9e-4 < dt.min() < 0.01 < dt.max() < 0.11, f"dt in [{dt.min()}, {dt.max()}]"


def test_recurrent_radius_starts_on_the_ring():
    mixer = RGLRUConfig(heads=500, head_dim=2).build(8, rngs=nnx.Rngs(3))
    radius = sigmoid(-np.asarray(mixer.decay[...], np.float64))
    assert 0.9 < radius.min() < 0.91, radius.min()
    assert 0.99 < radius.max() < 0.9991, radius.max()


def test_rwkv6_starts_as_its_code_does():
    D, layer, depth = 48, 2, 4
    mixer = RWKV6Config(head_dim=16).build(D, layer=layer, depth=depth, rngs=nnx.Rngs(3))
    rise, fall, n = layer / (depth - 1), 1 - layer / depth, np.arange(D)
    steep, gentle = 1 - (n / D) ** fall, 1 - (n / D) ** (fall / 2)
    close(mixer.mix_x[...], steep, "the mixture of the mixtures")
    close(mixer.mix[...], np.stack([steep, steep, steep - 0.3 * rise, gentle, gentle]), "the mixtures")
    close(mixer.decay[...], -6 + 5 * (n / (D - 1)) ** (0.7 + 1.3 * rise), "the decays")
    bonus = rise * (1 - n / (D - 1)) + 0.1 * ((n + 1) % 3 - 1)
    close(mixer.bonus[...], bonus.reshape(3, 16), "the bonus")
    close(mixer.norm.scale[...], np.full(D, (3 / 4) ** 0.7), "the norm's scale")


def test_rwkv4_starts_as_its_code_does():
    D, layer, depth = 48, 2, 4
    mixer = RWKV4Config().build(D, layer=layer, depth=depth, rngs=nnx.Rngs(3))
    rise, fall, n = layer / (depth - 1), 1 - layer / depth, np.arange(D)
    steep, gentle = 1 - (n / D) ** fall, 1 - (n / D) ** (fall / 2)
    close(mixer.mix[...], np.stack([steep, steep - 0.3 * rise, gentle]), "the mixtures")
    close(mixer.decay[...], -5 + 8 * (n / (D - 1)) ** (0.7 + 1.3 * rise), "the decays")
    close(mixer.bonus[...], np.log(0.3) + 0.5 * ((n + 1) % 3 - 1), "the bonus")
    close(RWKV6ChannelConfig(steepness=1).build(D, layer=2, depth=4, rngs=nnx.Rngs(3)).mix_k[...], steep, "channels")


def test_rwkv4_takes_keys_whose_exponentials_are_out_of_range():
    """A mean does not change with the unit of its weights, nor do its gradients."""
    graph, params = nnx.split(RWKV4Config().build(DIM, rngs=nnx.Rngs(0)))
    k, v = draw(2, LENGTH, DIM), draw(2, LENGTH, DIM, seed=1)
    ids = jnp.asarray([[1] * 4 + [-1] * 2 + [2] * 5] * 2)

    def moved(params, k, shift):
        mixer = nnx.merge(graph, params)
        return jnp.sum(jnp.where(ids[..., None] < 0, 0, mixer.means(k + shift, v, mixer.init_cache(2, 0), ids)[0] ** 2))

    found = [jax.jit(jax.value_and_grad(moved, argnums=(0, 1)))(params, k, shift) for shift in (0.0, -300.0, 300.0)]
    for shifted in found[1:]:
        close(shifted, found[0], "moved keys", 1e-4)  # of which 300 leaves 3e-5 as the last bit


def test_what_differs_by_layer_does_so_in_the_scanned_trunk():
    config = LightningConfig(heads=2, head_dim=4)
    lm = LM(LMConfig(vocab=5, dim=8, depth=3, pattern=(config,)), rngs=nnx.Rngs(0))
    expected = [[-(2.0**-4), -(2.0**-8)] * np.array(f) for f in (1, 0.5, 0)]
    np.testing.assert_allclose(lm.periods[0].mixer.decay[...], expected, atol=2e-5)


@pytest.mark.parametrize("config", [HGRNConfig(), HGRN2Config(heads=2, head_dim=4)])
def test_lower_bounds_are_learnt_once_for_all_layers(config):
    """They start at l / L, and are those of the paper wherever the trunk's one matrix goes."""
    lm = jax.jit(lambda: LM(LMConfig(vocab=5, dim=8, depth=DEPTH, pattern=(config,)), rngs=nnx.Rngs(0)))()
    bounds = lambda: np.stack([lm.block(i).mixer.shared(jnp.int32(i)) for i in range(DEPTH)])  # noqa: E731
    np.testing.assert_allclose(bounds(), np.tile(np.arange(DEPTH)[:, None] / DEPTH, (1, 8)), rtol=1e-6)
    weights = lm.shared[0].weights
    weights[...] = draw(DEPTH, 8)
    np.testing.assert_allclose(bounds(), floors(np.asarray(weights[...], np.float64)), rtol=1e-5, atol=1e-7)
    assert [path for path, _ in nnx.to_flat_state(nnx.state(lm, nnx.Param)) if "weights" in path] == [
        ("shared", 0, "weights")
    ]


def test_a_parameter_more_changes_no_other_draw():
    plain, convolving = (
        dict(jax.tree.leaves_with_path(nnx.to_pure_dict(nnx.state(config.build(DIM, rngs=nnx.Rngs(5))))))
        for config in (GLAConfig(head_dim=16), GLAConfig(head_dim=16, short_conv=4))
    )
    assert len(convolving) == len(plain) + 1
    for path, value in plain.items():
        np.testing.assert_array_equal(value, convolving[path], err_msg=jax.tree_util.keystr(path))


def test_the_root_has_a_bounded_gradient():
    x = jnp.asarray([0.0, 1e-12, 1e-4, 0.3])
    np.testing.assert_allclose(bounded_root(x), np.sqrt(x), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(bounded_root))(x), [1000, 1000, 50, 0.5 / np.sqrt(0.3)], rtol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (AttentionConfig(heads=3, kv_heads=2), "heads=3 must be a multiple of kv_heads=2"),
        (AttentionConfig(rope_dim=3), "rope_dim=3 must be even, and at most head_dim=64"),
        (GatedDeltaNetConfig(heads=3, key_heads=2), "heads=3 must be a multiple of key_heads=2"),
        (Mamba2Config(heads=3, groups=2), "heads=3 must be a multiple of groups=2"),
        (AttentionConfig(window=0), "window=0; expected at least 1"),
        (LongformerConfig(window=0), "window=0; expected at least 1"),
        (LongformerConfig(global_tokens=-1), "global_tokens=-1; expected at least 0"),
        (BigBirdConfig(global_tokens=-1), "global_tokens=-1; expected at least 0"),
        (BigBirdConfig(random=-1), "random=-1; expected at least 0"),
        (MoBAConfig(block_size=0), "block_size=0; expected at least 1"),
        (NSAConfig(block_size=0), "block_size=0; expected at least 1"),
        (NSAConfig(window=0), "window=0; expected at least 1"),
        (DSAConfig(chosen=0), "chosen=0; expected at least 1"),
        (ReformerConfig(rounds=0), "rounds=0; expected at least 1"),
        (LongformerConfig(heads=3, dilated_heads=4), "dilated_heads=4; expected 0 to heads=3"),
        (LongformerConfig(dilation=0), "dilation=0; expected at least 1"),
        (BigBirdConfig(block_size=0), "block_size=0; expected at least 1"),
        (BigBirdConfig(window=-1), "window=-1; expected at least 1"),
        (MoBAConfig(chosen=0), "chosen=0; expected at least 1"),
        (MoBAConfig(window=5), "window=5; expected None"),
        (NSAConfig(chosen=2), "chosen=2; expected at least 3"),
        (DSAConfig(index_dim=3), "index_dim=3 must be even"),
        (ReformerConfig(buckets=5), "buckets=5 must be a positive multiple of 2"),
        (ReformerConfig(chunk=0), "chunk=0; expected at least 1"),
        (ZambaConfig(mixer=HGRN2Config()), "zamba: mixer=HGRN2.*expected one whose layers share nothing"),
        (ParallelConfig(right=ZambaConfig()), "parallel: right=Zamba.*expected one that shares nothing"),
    ],
)
def test_settings_that_no_mixer_can_have_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        config.build(DIM, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    "config",
    [
        LongformerConfig(head_dim=16, window=2, global_tokens=100),
        BigBirdConfig(head_dim=16, block_size=2, global_tokens=100),
        MoBAConfig(head_dim=16, block_size=2, chosen=100),
        DSAConfig(head_dim=16, chosen=100),
    ],
)
def test_where_a_text_has_fewer_than_would_be_chosen_all_are_seen(config):
    """As it must where a text begins, or decoding could not; the op, which is given a whole text, refuses it."""
    x, plain = draw(2, LENGTH, DIM), AttentionConfig(head_dim=16)
    sparse, dense = (each.build(DIM, rngs=nnx.Rngs(0)) for each in (config, plain))
    close(jax.jit(lambda x: sparse(x))(x), dense(x), type(config).__name__)


def test_unknown_features_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which would speak first
    with pytest.raises(ValueError, match="no features='relu'; choose elu, taylor or square"):
        LinearAttentionConfig(features="relu")  # pyright: ignore[reportArgumentType]
