import numpy as np

from .common import DIM, convolved, heads, merged, rms, sigmoid, silu, softplus, unit


def definition(c, p, x):
    H, _ = c.sizes(DIM)
    qk = silu(convolved(x @ p.qk.kernel, getattr(p, "conv", None), c.short_conv))
    q, k = (unit(heads(z, H)) for z in np.split(qk, 2, axis=1))
    v, y = heads(x @ p.value.kernel, H), np.zeros_like(q)
    decay, beta = np.split(sigmoid(x @ p.gates.kernel + p.gates.bias), 2, axis=1)
    for h in range(H):
        G, S = np.zeros((2, c.head_dim, c.head_dim))
        for t in range(len(x)):
            G = decay[t, h] * G + beta[t, h] * np.outer(k[h, t], k[h, t])
            S = decay[t, h] * S + beta[t, h] * np.outer(k[h, t], v[h, t])
            y[h, t] = S.T @ np.linalg.solve(G + np.diag(softplus(p.regulariser[h]) + 0.25), q[h, t])
    y = rms(y, p.norm.scale)
    return merged(y * silu(heads(x @ p.gate.kernel, H)) if c.output_gate else y) @ p.out.kernel
