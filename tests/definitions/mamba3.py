import numpy as np

from .common import DIM, convolved, heads, merged, rms, sigmoid, silu, softplus

SWITCHED = {"groups": 2, "rank": 3}


def definition(c, p, x):
    H, inner, channels, A = c.sizes(DIM)
    R, K = c.rank, c.state_dim
    parts = np.split(x @ p.in_proj.kernel, np.cumsum([inner, channels, H, H, H]), axis=1)
    z, xBC, dt, rate, trap, phi = parts
    u, BC = np.split(convolved(xBC, getattr(p, "conv", None), c.short_conv), [inner], axis=1)
    u, z, (B, C) = heads(u, H), heads(z, H), BC.reshape(len(x), 2, R, c.groups, K).transpose(1, 0, 2, 3, 4)
    one = np.ones((R, H, c.head_dim))
    mimo_x, mimo_z, mimo_o = (getattr(p, f"mimo_{name}", one) for name in "xzo")
    dt, alpha = softplus(dt + p.dt_bias), None
    y = np.zeros_like(u)
    for h in range(H):
        S, angle, before = np.zeros((K, c.head_dim)), np.zeros(A), np.zeros((K, c.head_dim))
        for t in range(len(x)):
            d, trust, alpha = dt[t, h], sigmoid(trap[t, h]), np.exp(-softplus(rate[t, h]) * dt[t, h])
            angle = angle + np.pi * np.tanh(phi[t]) * d
            turn = np.exp(1j * angle)

            def turned(w, turn=turn):
                pairs = (w[:A] + 1j * w[A : 2 * A]) * turn
                return np.concatenate([pairs.real, pairs.imag, w[2 * A :]])

            g = h * c.groups // H
            k = [turned(rms(B[t, r, g], p.B_norm.scale) + p.B_bias[r, h]) for r in range(R)]
            q = [turned(rms(C[t, r, g], p.C_norm.scale) + p.C_bias[r, h]) for r in range(R)]
            v = u[h, t] * mimo_x[:, h]
            write = sum(np.outer(k[r], v[r]) for r in range(R))
            S = alpha * S + (1 - trust) * d * alpha * before + trust * d * write
            before = write
            for r in range(R):
                y[h, t] += (S.T @ q[r] + p.D[h] * v[r]) * silu(z[h, t] * mimo_z[r, h]) * mimo_o[r, h]
    return merged(y) @ p.out.kernel
