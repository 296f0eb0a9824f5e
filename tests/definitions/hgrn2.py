import numpy as np

from .common import DIM, LAYER, convolved, floors, heads, merged, rms, sigmoid, silu


def definition(c, p, x):
    H, _ = c.sizes(DIM)
    qfi = convolved(x @ p.qfi.kernel, getattr(p, "conv", None), c.short_conv)
    q, f, i = (heads(z, H) for z in np.split(qfi, 3, axis=1))
    bound = heads(floors(p.shared.weights)[LAYER : LAYER + 1], H) if c.lower_bounds else 0
    f, y = bound + (1 - bound) * sigmoid(f), np.zeros_like(i)
    for h in range(H):
        S = np.zeros((c.head_dim, c.head_dim))
        for t in range(len(x)):
            S = f[h, t][:, None] * S + np.outer(1 - f[h, t], i[h, t])
            y[h, t] = silu(q[h, t]) @ S / np.sqrt(c.head_dim)
    return rms(merged(y), p.norm.scale) @ p.out.kernel
