import numpy as np

from .common import DIM, convolved, heads, merged, rms, sigmoid, silu, softplus, unit

SWITCHED = {"householders": 3}


def definition(c, p, x):
    H, keys, values = c.sizes(DIM)
    n = c.householders
    qkv = silu(convolved(x @ p.qkv.kernel, getattr(p, "conv", None), c.short_conv))
    q, k, v = np.split(qkv, [keys, (1 + n) * keys], axis=1)
    q, k, v = unit(heads(q, H)), unit(k.reshape(len(x), n, H, -1)), v.reshape(len(x), n, H, -1)
    beta = sigmoid(x @ p.beta.kernel).reshape(len(x), n, H) * (1 + c.negative_eigenvalues)
    decay = np.exp(-np.exp(p.A_log) * softplus(x @ p.decay.kernel + p.dt_bias))
    y = np.zeros((H, len(x), values // H))
    for h in range(H):
        S = np.zeros((keys // H, values // H))
        for t in range(len(x)):
            S = decay[t, h] * S
            for i in range(n):
                S = S + beta[t, i, h] * np.outer(k[t, i, h], v[t, i, h] - S.T @ k[t, i, h])
            y[h, t] = S.T @ q[h, t] / np.sqrt(keys // H)
    return merged(rms(y, p.norm.scale) * silu(heads(x @ p.gate.kernel, H))) @ p.out.kernel
