import numpy as np

from .common import DEPTH, DIM, LAYER, convolved, rms, sigmoid, silu


def definition(c, p, x):
    x = convolved(x, getattr(p, "conv", None), c.short_conv)
    bound = LAYER / DEPTH if c.lower_bounds else 0
    f, candidate = bound + (1 - bound) * sigmoid(-x @ p.update.kernel), silu(x @ p.candidate.kernel)
    h, y = np.zeros(c.width(DIM)), []
    for t in range(len(x)):
        h = f[t] * h + (1 - f[t]) * candidate[t]
        y.append(h)
    return (rms(x @ p.gate.kernel, p.norm.scale, 1e-6) * silu(np.stack(y))) @ p.out.kernel
