import numpy as np

from .common import DIM, convolved, rms, silu, softplus

SWITCHED = {"norm_eps": 0.1}


def definition(c, p, x):
    inner, rank = c.sizes(DIM)
    u, z = np.split(x @ p.in_proj.kernel, 2, axis=1)
    u = silu(convolved(u, getattr(p, "conv", None), c.short_conv))
    r, B, C = np.split(u @ p.x_proj.kernel, [rank, rank + c.state_dim], axis=1)
    if c.inner_norm:
        scales = (p.dt_norm.scale, p.B_norm.scale, p.C_norm.scale)
        r, B, C = (rms(z, scale, c.norm_eps) for z, scale in zip((r, B, C), scales, strict=True))
    dt = softplus(r @ p.dt_proj.kernel + p.dt_bias)
    h, y = np.zeros((inner, c.state_dim)), np.zeros_like(u)
    for t in range(len(x)):
        h = np.exp(-np.exp(p.A_log) * dt[t][:, None]) * h + np.outer(dt[t] * u[t], B[t])
        y[t] = h @ C[t] + p.D * u[t]
    return (y * silu(z)) @ p.out.kernel
