import numpy as np

from .common import DIM, convolved, heads, merged, sigmoid, silu

TOLERANCE = 5e-5  # the divisor can nearly vanish, and float32 is then 8e-6 off in the gradient of W_q on one device
VARIANTS = {"wide-blocks": {"heads": 3, "block": 8, "expand": 1.5}}


def definition(c, p, x):
    H, width = c.heads, c.width(DIM)
    u, z = np.split(x @ p.up.kernel, 2, axis=1)
    conv = silu(convolved(u, p.conv, c.short_conv)) if c.short_conv else u
    q, k, v = (merged(heads(a, width // c.block) @ m.kernel) for a, m in ((conv, p.q), (conv, p.k), (u, p.v)))
    i, f = np.split(np.concatenate([q, k, v], 1) @ p.gates.kernel + p.gate_bias, 2, axis=1)
    q, k, v = (heads(a, H) for a in (q, k, v))
    h = np.zeros_like(v)
    for j in range(H):
        C, n = np.zeros((width // H, width // H)), np.zeros(width // H)
        for t in range(len(x)):
            C = sigmoid(f[t, j]) * C + np.exp(i[t, j]) * np.outer(k[j, t], v[j, t])
            n = sigmoid(f[t, j]) * n + np.exp(i[t, j]) * k[j, t]
            query = q[j, t] / np.sqrt(width // H)
            h[j, t] = C.T @ query / max(abs(n @ query), 1)
    return ((merged(normed(h)) * p.norm.scale + p.skip * conv) * silu(z)) @ p.down.kernel


def normed(h):
    h = h - h.mean(-1, keepdims=True)
    return h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-5)
