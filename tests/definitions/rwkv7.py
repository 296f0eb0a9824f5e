import numpy as np

from .common import DIM, heads, merged, sigmoid


def definition(c, p, x, first_values=0):
    """Of a layer after the first, whose values are ``first_values``."""
    H, _ = c.sizes(DIM)
    before = np.concatenate([0 * x[:1], x[:-1]])
    x_r, x_w, x_k, x_v, x_a, x_g = (x + (before - x) * m for m in p.mix)
    w = np.exp(-np.exp(-0.5) * sigmoid(p.decay.bias + np.tanh(x_w @ p.decay.down.kernel) @ p.decay.up.kernel))
    a = sigmoid(p.rate.bias + x_a @ p.rate.down.kernel @ p.rate.up.kernel)
    share = sigmoid(p.residual.bias + x_v @ p.residual.down.kernel @ p.residual.up.kernel)
    gate = sigmoid(x_g @ p.gate.down.kernel) @ p.gate.up.kernel
    r, k, v = x_r @ p.receptance.kernel, x_k @ p.key.kernel, x_v @ p.value.kernel
    v = v + (first_values - v) * share
    kappa, k = heads(k * p.key_erase, H), k * (1 + (a - 1) * p.key_write)
    kappa = kappa / np.linalg.norm(kappa, axis=-1, keepdims=True)
    r, k, v, w, a = (heads(z, H) for z in (r, k, v, w, a))
    y = np.zeros_like(v)
    for h in range(H):
        S = np.zeros((r.shape[2], v.shape[2]))
        for t in range(len(x)):
            transition = np.diag(w[h, t]) - np.outer(a[h, t] * kappa[h, t], kappa[h, t])
            S = transition @ S + np.outer(k[h, t], v[h, t])
            y[h, t] = S.T @ r[h, t]
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 64e-5)
    bonus = np.sum(r * k * p.bonus[:, None], -1, keepdims=True) * v
    return ((merged(y) * p.norm.scale + p.norm.bias + merged(bonus)) * gate) @ p.out.kernel
