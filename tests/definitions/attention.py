import numpy as np

from .common import convolved, heads, merged, rms, sigmoid

SWITCHED = {"kv_heads": 1}
VARIANTS = {
    "window": {"window": 5},
    "partial-rotary": {"rope_dim": 6, "qk_norm": True, "norm_eps": 0.1},
    "no-rotary": {"rope_dim": 0},
}


def definition(c, p, x):
    return attended(
        c, p, x, lambda h, t, H, q, k: np.arange(0 if c.window is None else max(0, t - c.window + 1), t + 1)
    )


def rotated(z, turn):
    half = turn.shape[1]
    pairs = (z[..., :half] + 1j * z[..., half : 2 * half]) * turn
    return np.concatenate([pairs.real, pairs.imag, z[..., 2 * half :]], axis=-1)


def attended(c, p, x, seen):
    """``seen(h, t, H, q, k)``: the tokens that head h of H sees from t, given its query and all keys, rotated."""
    q, k, v = projected(c, p, x)
    H, y = len(q), np.zeros_like(q)
    for h in range(H):
        j = h * len(k) // H
        for t in range(len(x)):
            y[h, t] = softmax_sum(q[h, t], k[j], v[j], seen(h, t, H, q[h, t], k[j]))
    return finished(c, p, x, y)


def softmax_sum(q, k, v, tokens):
    score = k[tokens] @ q / np.sqrt(len(q))
    weight = np.exp(score - score.max(initial=-np.inf))
    return weight / weight.sum() @ v[tokens] if len(tokens) else np.zeros_like(q)


def projected(c, p, x):
    """q, k and v by head, rotated."""
    H, Hk, _ = c.sizes(x.shape[1])
    qkv = x @ p.qkv.kernel + (p.qkv.bias if c.qkv_bias else 0)
    qkv = convolved(qkv, p.conv if c.short_conv else None, c.short_conv)
    q, k, v = np.split(heads(qkv, H + 2 * Hk), [H, H + Hk])
    if c.qk_norm:
        q, k = rms(q, p.q_norm.scale, c.norm_eps), rms(k, p.k_norm.scale, c.norm_eps)
    turn = turns(len(x), c.head_dim if c.rope_dim is None else c.rope_dim, c.rope_base)
    return rotated(q, turn), rotated(k, turn), v


def turns(T, width, base):
    half = width // 2
    return np.exp(1j * np.outer(np.arange(T), base ** (-np.arange(half) / max(half, 1))))


def finished(c, p, x, y):
    gate = sigmoid(x @ p.gate.kernel) if c.gate else 1
    return (gate * merged(y)) @ p.out.kernel + (p.out.bias if c.out_bias else 0)
