import numpy as np

from .common import DIM, convolved, sigmoid


def definition(c, p, x):
    x = convolved(x, getattr(p, "conv", None), c.short_conv)
    f, i, u = sigmoid(x @ p.forget.kernel), sigmoid(x @ p.update.kernel), x @ p.candidate.kernel
    candidate, h, y = np.where(u >= 0, u + 0.5, sigmoid(u)), np.zeros(c.width(DIM)), []
    for t in range(len(x)):
        h = f[t] / (f[t] + i[t]) * h + i[t] / (f[t] + i[t]) * candidate[t]
        y.append(h)
    return np.stack(y) @ p.out.kernel
