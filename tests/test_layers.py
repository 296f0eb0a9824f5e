"""Every mixer against the equations of its paper, written out token by token in float64 NumPy, and what starts how."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from mixers import CONFIGS, DIM, built, close, draw, every_mixer, quick_jit
from subquad.layers import (
    CHANNEL_MIXERS,
    AttentionConfig,
    DeltaNetConfig,
    GatedDeltaNetConfig,
    GeluMLPConfig,
    GLAConfig,
    Mamba2Config,
    MinGRUConfig,
    RGLRUConfig,
    SwiGLUConfig,
)
from subquad.layers.rg_lru import bounded_root

LENGTH = 11


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def softplus(x):
    return np.log1p(np.exp(x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def rms(x, scale):
    return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-5) * scale


def unit(x):
    return x / np.sqrt(np.sum(x**2, -1, keepdims=True) + 1e-6)


def convolved(x, conv, width):
    if not width:
        return x
    past = np.concatenate([np.zeros((width - 1, x.shape[1])), x])
    y = np.stack([sum(conv.filter[j] * past[t + j] for j in range(width)) for t in range(len(x))])
    return y + (conv.bias if hasattr(conv, "bias") else 0)


def heads(x, H):
    return x.reshape(len(x), H, -1).transpose(1, 0, 2)


def merged(x):
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)


def attention(c, p, x):
    H, Hk, _ = c.sizes(DIM)
    qkv = convolved(x @ p.qkv.kernel, p.conv if c.short_conv else None, c.short_conv)
    q, k, v = np.split(heads(qkv, H + 2 * Hk), [H, H + Hk])
    if c.qk_norm:
        q, k = rms(q, p.q_norm.scale), rms(k, p.k_norm.scale)
    half = c.head_dim // 2
    turn = np.exp(1j * np.outer(np.arange(len(x)), c.rope_base ** (-np.arange(half) / half)))
    q, k = (z[..., :half] + 1j * z[..., half:] for z in (q, k))
    y = np.zeros((H, len(x), c.head_dim))
    for h in range(H):
        j = h * Hk // H
        for t in range(len(x)):
            start = 0 if c.window is None else max(0, t - c.window + 1)
            score = np.real((q[h, t] * turn[t]) @ np.conj(k[j] * turn)[start : t + 1].T) / np.sqrt(c.head_dim)
            weight = np.exp(score - score.max())
            y[h, t] = weight / weight.sum() @ v[j, start : t + 1]
    return merged(y) @ p.out.kernel


def mamba2(c, p, x):
    H, inner, channels = c.sizes(DIM)
    z, xBC, dt = np.split(x @ p.in_proj.kernel, [inner, inner + channels], axis=1)
    u, BC = np.split(silu(convolved(xBC, getattr(p, "conv", None), c.short_conv)), [inner], axis=1)
    u, (B, C) = heads(u, H), np.split(heads(BC, 2 * c.groups), 2)
    dt = softplus(dt + p.dt_bias)
    y = np.zeros_like(u)
    for h in range(H):
        S, g = np.zeros((c.state_dim, c.head_dim)), h * c.groups // H
        for t in range(len(x)):
            S = np.exp(-np.exp(p.A_log[h]) * dt[t, h]) * S + np.outer(B[g, t], dt[t, h] * u[h, t])
            y[h, t] = S.T @ C[g, t] + p.D[h] * u[h, t]
    y = (merged(y) * silu(z)).reshape(len(x), c.groups, -1)
    return rms(y, p.norm.scale.reshape(c.groups, -1)).reshape(len(x), -1) @ p.out.kernel


def gla(c, p, x):
    H, keys, _ = c.sizes(DIM)
    qkv = x @ p.qkv.kernel
    if c.short_conv:
        qkv = silu(convolved(qkv, p.conv, c.short_conv))
    q, k, v = (heads(z, H) for z in np.split(qkv, [keys, 2 * keys], axis=1))
    a = sigmoid(x @ p.decay_in.kernel @ p.decay_out.kernel + p.decay_out.bias) ** (1 / c.gate_normalizer)
    a, gate, y = heads(a, H), heads(x @ p.gate.kernel, H), np.zeros_like(v)
    for h in range(H):
        S = np.zeros((q.shape[2], v.shape[2]))
        for t in range(len(x)):
            S = a[h, t][:, None] * S + np.outer(k[h, t], v[h, t])
            y[h, t] = S.T @ q[h, t] / np.sqrt(q.shape[2])
    return merged(rms(y, p.norm.scale) * silu(gate)) @ p.out.kernel


def delta(q, k, v, beta, decay):
    y = np.zeros_like(v)
    for h in range(len(v)):
        S = np.zeros((q.shape[2], v.shape[2]))
        for t in range(v.shape[1]):
            S = decay[t, h] * (S - beta[t, h] * np.outer(k[h, t], k[h, t] @ S)) + beta[t, h] * np.outer(
                k[h, t], v[h, t]
            )
            y[h, t] = S.T @ q[h, t] / np.sqrt(q.shape[2])
    return y


def deltanet(c, p, x):
    H, _ = c.sizes(DIM)
    qkv = silu(convolved(x @ p.qkv.kernel, getattr(p, "conv", None), c.short_conv))
    q, k, v = (heads(z, H) for z in np.split(qkv, 3, axis=1))
    beta = sigmoid(x @ p.beta.kernel) * (1 + c.negative_eigenvalues)
    return merged(rms(delta(unit(q), unit(k), v, beta, np.ones_like(beta)), p.norm.scale)) @ p.out.kernel


def gated_deltanet(c, p, x):
    H, keys, _ = c.sizes(DIM)
    qkv = silu(convolved(x @ p.qkv.kernel, getattr(p, "conv", None), c.short_conv))
    q, k, v = (heads(z, H) for z in np.split(qkv, [keys, 2 * keys], axis=1))
    beta = sigmoid(x @ p.beta.kernel) * (1 + c.negative_eigenvalues)
    decay = np.exp(-np.exp(p.A_log) * softplus(x @ p.decay.kernel + p.dt_bias))
    y = delta(unit(q), unit(k), v, beta, decay)
    return merged(rms(y, p.norm.scale) * silu(heads(x @ p.gate.kernel, H))) @ p.out.kernel


def min_gru(c, p, x):
    x = convolved(x, getattr(p, "conv", None), c.short_conv)
    z, u = sigmoid(x @ p.update.kernel), x @ p.candidate.kernel
    candidate, h, y = np.where(u >= 0, u + 0.5, sigmoid(u)), np.zeros(c.width(DIM)), []
    for t in range(len(x)):
        h = (1 - z[t]) * h + z[t] * candidate[t]
        y.append(h)
    return np.stack(y) @ p.out.kernel


def rg_lru(c, p, x):
    H, width = c.sizes(DIM)
    u = convolved(x @ p.x.kernel + p.x.bias, getattr(p, "conv", None), c.short_conv)
    r, i = (sigmoid(merged(heads(u, H) @ g.kernel + g.bias[:, None])) for g in (p.gate_r, p.gate_i))
    a, h, y = sigmoid(-p.decay) ** (8 * r), np.zeros(width), []  # sigmoid(-d) = exp(-softplus(d))
    for t in range(len(x)):
        h = a[t] * h + (np.sqrt(1 - a[t] ** 2) if t else 1) * i[t] * u[t]
        y.append(h)
    return (np.stack(y) * gelu(x @ p.y.kernel + p.y.bias)) @ p.out.kernel + p.out.bias


DEFINITIONS = {
    AttentionConfig: attention,
    DeltaNetConfig: deltanet,
    GatedDeltaNetConfig: gated_deltanet,
    GLAConfig: gla,
    Mamba2Config: mamba2,
    MinGRUConfig: min_gru,
    RGLRUConfig: rg_lru,
}


def named(params):
    """Parameters as float64 arrays under their attribute names."""
    if isinstance(params, dict):
        return types.SimpleNamespace(**{k: named(v) for k, v in params.items()})
    return np.asarray(params, np.float64)


@every_mixer
def test_mixer_computes_its_papers_equations(name):
    graph, params = built(name)
    x = draw(2, LENGTH, DIM)
    got = quick_jit(lambda params, x: nnx.merge(graph, params)(x))(params, x)
    config, arrays = CONFIGS[name], named(nnx.to_pure_dict(params))
    definition = DEFINITIONS[type(config)]
    close(got, np.stack([definition(config, arrays, row) for row in np.asarray(x, np.float64)]), name)


CHANNEL = {
    "swiglu": SwiGLUConfig(),
    "gelu_mlp": GeluMLPConfig(),
    "gelu_mlp-gated": GeluMLPConfig(gated=True, hidden=40),
    "gelu_mlp-bias": GeluMLPConfig(bias=True),
    "gelu_mlp-gated-bias": GeluMLPConfig(gated=True, bias=True),
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
    act = silu if name == "swiglu" else gelu
    hidden = up if not (name == "swiglu" or config.gated) else None
    if hidden is None:
        gate, value = np.split(up, 2, axis=-1)
        hidden = act(gate) * value
    else:
        hidden = act(hidden)
    close(nnx.merge(graph, params)(x), hidden @ p.down.kernel + bias(p.down), name)

    half = config.build(DIM, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    y = half(x.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    close(y, mixer(x), f"{name}: bfloat16", 2e-2)


@pytest.mark.parametrize("kind", [Mamba2Config, GatedDeltaNetConfig])
def test_decays_and_steps_start_where_the_papers_say(kind):
    mixer = kind(heads=500, head_dim=1).build(8, rngs=nnx.Rngs(3))
    rate, dt = np.exp(mixer.A_log[...]), softplus(np.asarray(mixer.dt_bias[...]))
    assert 0 < rate.min() < 8 < rate.max() <= 16, f"exp(A_log) in [{rate.min()}, {rate.max()}]"
    assert 9e-4 < dt.min() < 0.01 < dt.max() < 0.11, f"softplus(dt_bias) in [{dt.min()}, {dt.max()}]"


def test_recurrent_radius_starts_on_the_ring():
    mixer = RGLRUConfig(heads=500, head_dim=2).build(8, rngs=nnx.Rngs(3))
    radius = sigmoid(-np.asarray(mixer.decay[...], np.float64))
    assert 0.9 < radius.min() < 0.91, radius.min()
    assert 0.99 < radius.max() < 0.9991, radius.max()


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
        (Mamba2Config(heads=3, groups=2), "heads=3 must be a multiple of groups=2"),
    ],
)
def test_heads_that_do_not_divide_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        config.build(DIM, rngs=nnx.Rngs(0))
