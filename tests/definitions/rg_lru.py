import numpy as np

from .common import DIM, convolved, gelu, heads, merged, sigmoid


def definition(c, p, x):
    H, width = c.sizes(DIM)
    u = convolved(x @ p.x.kernel + p.x.bias, getattr(p, "conv", None), c.short_conv)
    r, i = (sigmoid(merged(heads(u, H) @ g.kernel + g.bias[:, None])) for g in (p.gate_r, p.gate_i))
    a, h, y = sigmoid(-p.decay) ** (8 * r), np.zeros(width), []  # sigmoid(-d) = exp(-softplus(d))
    for t in range(len(x)):
        h = a[t] * h + (np.sqrt(1 - a[t] ** 2) if t else 1) * i[t] * u[t]
        y.append(h)
    return (np.stack(y) * gelu(x @ p.y.kernel + p.y.bias)) @ p.out.kernel + p.out.bias
