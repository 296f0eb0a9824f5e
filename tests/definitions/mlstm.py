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
    h = memory(q, k, v, i, f)
    return ((merged(normed(h)) * p.norm.scale + p.skip * conv) * silu(z)) @ p.down.kernel


def memory(q, k, v, i, f):
    """Heads first; the gates are ``[tokens, heads]``."""
    h = np.zeros_like(v)
    for j in range(len(v)):
        C, n = np.zeros((q.shape[2], v.shape[2])), np.zeros(q.shape[2])
        for t in range(v.shape[1]):
            C = sigmoid(f[t, j]) * C + np.exp(i[t, j]) * np.outer(k[j, t], v[j, t])
            n = sigmoid(f[t, j]) * n + np.exp(i[t, j]) * k[j, t]
            query = q[j, t] / np.sqrt(len(n))
            h[j, t] = C.T @ query / max(abs(n @ query), 1)
    return h


def normed(h, eps=1e-5):
    h = h - h.mean(-1, keepdims=True)
    return h / np.sqrt((h**2).mean(-1, keepdims=True) + eps)
