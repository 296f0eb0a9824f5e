import numpy as np

from .common import DIM, convolved, heads, merged, rms

SWITCHED = {"kv_heads": 1}
VARIANTS = {"window": {"window": 5}}


def definition(c, p, x):
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
