import numpy as np

from .common import DIM, convolved, heads, merged, rms, sigmoid, silu, softplus, unit


def definition(c, p, x):
    H, keys, _ = c.sizes(DIM)
    qkv = silu(convolved(x @ p.qkv.kernel, getattr(p, "conv", None), c.short_conv))
    q, k, v = (heads(z, H) for z in np.split(qkv, [keys, 2 * keys], axis=1))
    beta = sigmoid(x @ p.beta.kernel) * (1 + c.negative_eigenvalues)
    decay = np.exp(-np.exp(p.A_log) * softplus(x @ p.decay.kernel + p.dt_bias))
    y = np.zeros_like(v)
    for h in range(H):
        S, d = np.zeros((q.shape[2], v.shape[2])), sigmoid(p.erase[h])
        query, key = unit(q[h] - p.correction[h] * d * k[h]), unit(k[h])
        for t in range(len(x)):
            S = (decay[t, h] * np.eye(len(S)) - beta[t, h] * d * np.outer(key[t], key[t])) @ S
            S = S + beta[t, h] * np.outer(key[t], v[h, t])
            y[h, t] = S.T @ query[t] / np.sqrt(q.shape[2])
    return merged(rms(y, p.norm.scale) * sigmoid(heads(x @ p.gate.kernel, H))) @ p.out.kernel
