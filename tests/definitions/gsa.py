import numpy as np

from .common import DIM, convolved, heads, merged, rms, sigmoid, silu


def definition(c, p, x):
    H, _ = c.sizes(DIM)
    qkv = silu(convolved(x @ p.qkv.kernel, getattr(p, "conv", None), c.short_conv))
    q, k, v = (heads(z, H) for z in np.split(qkv, 3, axis=1))
    f, y = heads(sigmoid(x @ p.forget.kernel) ** (1 / c.gate_normalizer), H), np.zeros_like(v)
    for h in range(H):
        K, V = np.zeros((2, c.slots, c.head_dim))
        for t in range(len(x)):
            a = f[h, t][:, None]
            K, V = a * K + (1 - a) * k[h, t], a * V + (1 - a) * v[h, t]
            w = np.exp(K @ q[h, t])
            y[h, t] = w / w.sum() @ V
    return rms(silu(merged(y)), p.norm.scale) @ p.out.kernel
