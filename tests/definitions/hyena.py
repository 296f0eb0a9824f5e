import numpy as np

from .common import DIM, convolved

VARIANTS = {"order": {"order": 3}}


def filters(c, p, length):
    bands = (c.filter_features - 1) // 2
    lag, channels = np.arange(length)[:, None], p.last.shape[1]
    z = np.exp(-2j * np.pi * lag / c.filter_len * np.linspace(1e-4, bands - 1, bands))
    h = np.concatenate([lag / (c.filter_len - 1), z.real, z.imag], axis=1)
    h = np.sin(p.frequency * (h @ p.first + p.first_bias))
    for weight, bias in zip(p.inner, p.inner_bias, strict=True):
        h = np.sin(p.frequency * (h @ weight + bias))
    rates = np.abs(np.linspace(np.log(1e-2) / 1.5, np.log(1e-2) / 0.3, channels))
    return h @ p.last * np.exp(-lag / (c.filter_len - 1) * rates)


def definition(c, p, x):
    projected = x @ p.in_proj.kernel + p.in_proj.bias
    *gates, v = np.split(convolved(projected, getattr(p, "conv", None), c.short_conv), c.order + 1, axis=1)
    h = filters(c, p.filter, len(x))
    for i, gate in enumerate(gates[:0:-1]):
        v, kernel = gate * v, h[:, i * DIM : (i + 1) * DIM]
        v = np.stack([sum(kernel[j] * v[t - j] for j in range(t + 1)) for t in range(len(x))]) + p.D[i] * v
    return (gates[0] * v) @ p.out.kernel + p.out.bias
