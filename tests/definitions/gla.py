import numpy as np

from .common import DIM, convolved, heads, merged, rms, sigmoid, silu


def definition(c, p, x):
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
