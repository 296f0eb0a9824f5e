import numpy as np

from .common import DIM, convolved, heads, merged, rms, sigmoid, silu, softplus, unit


def definition(c, p, x):
    beta = heads(sigmoid(x @ p.beta.kernel), c.sizes(DIM)[0]) * (1 + c.negative_eigenvalues)
    return mixed(c, p, x, beta, beta)


def mixed(c, p, x, erase, write):
    """``erase`` and ``write`` are ``[H, T, K]`` and ``[H, T, V]``, or ``[H, T, 1]``."""
    H, keys, _ = c.sizes(DIM)
    qkv = silu(convolved(x @ p.qkv.kernel, getattr(p, "conv", None), c.short_conv))
    q, k, v = (heads(z, H) for z in np.split(qkv, [keys, 2 * keys], axis=1))
    q, k = unit(q), unit(k)
    dt = heads(softplus(x @ p.decay_in.kernel @ p.decay_out.kernel + p.dt_bias), H)
    gate = heads(x @ p.gate_in.kernel @ p.gate_out.kernel + p.gate_out.bias, H)
    y = np.zeros_like(v)
    for h in range(H):
        S = np.zeros((q.shape[2], v.shape[2]))
        for t in range(len(x)):
            S = np.exp(-np.exp(p.A_log[h]) * dt[h, t])[:, None] * S
            S = S - np.outer(k[h, t], (erase[h, t] * k[h, t]) @ S) + np.outer(k[h, t], write[h, t] * v[h, t])
            y[h, t] = S.T @ q[h, t] / np.sqrt(q.shape[2])
    return merged(rms(y, p.norm.scale) * sigmoid(gate)) @ p.out.kernel
