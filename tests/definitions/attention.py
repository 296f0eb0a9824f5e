import numpy as np

from .common import convolved, heads, merged, rms, sigmoid

SWITCHED = {"kv_heads": 1}
VARIANTS = {
    "window": {"window": 5},
    "partial-rotary": {"rope_dim": 6, "qk_norm": True, "norm_eps": 0.1},
    "no-rotary": {"rope_dim": 0},
}


def definition(c, p, x):
    H, Hk, _ = c.sizes(x.shape[1])
    qkv = x @ p.qkv.kernel + (p.qkv.bias if c.qkv_bias else 0)
    qkv = convolved(qkv, p.conv if c.short_conv else None, c.short_conv)
    q, k, v = np.split(heads(qkv, H + 2 * Hk), [H, H + Hk])
    if c.qk_norm:
        q, k = rms(q, p.q_norm.scale, c.norm_eps), rms(k, p.k_norm.scale, c.norm_eps)
    turning = c.head_dim if c.rope_dim is None else c.rope_dim
    half = turning // 2
    turn = np.exp(1j * np.outer(np.arange(len(x)), c.rope_base ** (-np.arange(half) / max(half, 1))))
    q, k = (np.append(z[..., :half] + 1j * z[..., half:turning], z[..., turning:], axis=-1) for z in (q, k))
    turn = np.append(turn, np.ones((len(x), c.head_dim - turning)), axis=1)
    y = np.zeros((H, len(x), c.head_dim))
    for h in range(H):
        j = h * Hk // H
        for t in range(len(x)):
            start = 0 if c.window is None else max(0, t - c.window + 1)
            score = np.real((q[h, t] * turn[t]) @ np.conj(k[j] * turn)[start : t + 1].T) / np.sqrt(c.head_dim)
            weight = np.exp(score - score.max())
            y[h, t] = weight / weight.sum() @ v[j, start : t + 1]
    gate = sigmoid(x @ p.gate.kernel) if c.gate else 1
    return (gate * merged(y)) @ p.out.kernel + (p.out.bias if c.out_bias else 0)
