import numpy as np

from .common import DIM, convolved, rms, sigmoid, silu


def definition(c, p, x):
    inner, rank = c.sizes(DIM)
    u, z = np.split(x @ p.in_proj.kernel, 2, axis=1)
    u = silu(convolved(u, getattr(p, "conv", None), c.short_conv))
    r, k, q = np.split(u @ p.x_proj.kernel, [rank, rank + c.state_dim], axis=1)
    if c.inner_norm:
        r, k, q = rms(r, p.dt_norm.scale), rms(k, p.B_norm.scale), rms(q, p.C_norm.scale)
    beta = sigmoid(r @ p.dt_proj.kernel + p.dt_bias)
    h, y = np.zeros((inner, c.state_dim)), np.zeros_like(u)
    for t in range(len(x)):
        delta = beta[t] / (1 + beta[t] * (k[t] @ k[t]))
        h = (1 - np.outer(delta, k[t] ** 2)) * h + np.outer(delta * u[t], k[t])
        y[t] = h @ q[t] + p.D * u[t]
    return (y * silu(z)) @ p.out.kernel
