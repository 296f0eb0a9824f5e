import numpy as np

from .common import DIM, convolved, heads, merged, rms, silu, softplus

SWITCHED = {"groups": 2, "norm_eps": 0.1}
VARIANTS = {"log_linear": {"levels": 4}}


def definition(c, p, x):
    H, inner, channels = c.sizes(DIM)
    z, xBC, dt = np.split(x @ p.in_proj.kernel, [inner, inner + channels], axis=1)
    u, BC = np.split(silu(convolved(xBC, getattr(p, "conv", None), c.short_conv)), [inner], axis=1)
    u, (B, C) = heads(u, H), np.split(heads(BC, 2 * c.groups), 2)
    dt = softplus(dt + p.dt_bias)
    y = np.zeros_like(u)
    if c.levels:
        w = softplus(p.level_scale * (x @ p.weigh.kernel).reshape(len(x), H, c.levels))
    for h in range(H):
        S, g = np.zeros((c.state_dim, c.head_dim)), h * c.groups // H
        for t in range(len(x)):
            S = np.exp(-np.exp(p.A_log[h]) * dt[t, h]) * S + np.outer(B[g, t], dt[t, h] * u[h, t])
            y[h, t] = S.T @ C[g, t] + p.D[h] * u[h, t]
            if c.levels:
                y[h, t] = p.D[h] * u[h, t]
                for j in range(t + 1):
                    decay = np.exp(-np.exp(p.A_log[h]) * dt[j + 1 : t + 1, h].sum())
                    weight = w[t, h, min((t ^ j).bit_length(), c.levels - 1)] * decay
                    y[h, t] += weight * (C[g, t] @ B[g, j]) * dt[j, h] * u[h, j]
    y = (merged(y) * silu(z)).reshape(len(x), c.groups, -1)
    y = rms(y, p.norm.scale.reshape(c.groups, -1), c.norm_eps) if c.out_norm else y
    return y.reshape(len(x), -1) @ p.out.kernel
