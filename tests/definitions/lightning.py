import numpy as np

from .common import DEPTH, DIM, LAYER, convolved, heads, merged, rms, sigmoid, silu


def definition(c, p, x):
    H, _ = c.sizes(DIM)
    qkv = silu(convolved(x @ p.qkv.kernel, getattr(p, "conv", None), c.short_conv))
    q, k, v = (heads(z, H) for z in np.split(qkv, 3, axis=1))
    y = np.zeros_like(v)
    for h in range(H):
        slope = (1 / 2 ** (8 / H)) ** (h + 1) * (1 - LAYER / (DEPTH - 1 + 1e-5) + 1e-5)
        S = np.zeros((c.head_dim, c.head_dim))
        for t in range(len(x)):
            S = np.exp(-slope) * S + np.outer(k[h, t], v[h, t])
            y[h, t] = q[h, t] @ S
    return (sigmoid(x @ p.gate.kernel) * rms(merged(y), p.norm.scale, 1e-6)) @ p.out.kernel
