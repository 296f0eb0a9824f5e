import numpy as np

from .common import convolved, silu


def definition(c, p, x):
    u, v = np.split(x @ p.uv.kernel + p.uv.bias, 2, axis=1)
    return (silu(convolved(u, getattr(p, "conv", None), c.short_conv)) * v) @ p.out.kernel + p.out.bias
