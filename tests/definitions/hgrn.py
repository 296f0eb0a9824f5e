import numpy as np

from .common import DIM, LAYER, convolved, floors, sigmoid, silu


def definition(c, p, x):
    x = convolved(x, getattr(p, "conv", None), c.short_conv)
    bound = floors(p.shared.weights)[LAYER] if c.lower_bounds else 0
    lam = bound + (1 - bound) * sigmoid(x @ p.forget.kernel + p.forget.bias)
    real, imaginary = np.split(silu(x @ p.candidate.kernel + p.candidate.bias), 2, axis=1)
    h, y = np.zeros(c.width(DIM), complex), []
    for t in range(len(x)):
        h = lam[t] * np.exp(1j * p.theta) * h + (1 - lam[t]) * (real[t] + 1j * imaginary[t])
        y.append(np.concatenate([h.real, h.imag]))
    y = np.stack(y)
    y = y - y.mean(1, keepdims=True)
    y = y / np.sqrt((y**2).mean(1, keepdims=True) + 1e-5) * p.norm.scale + p.norm.bias
    return (y * silu(x @ p.gate.kernel + p.gate.bias)) @ p.out.kernel + p.out.bias
