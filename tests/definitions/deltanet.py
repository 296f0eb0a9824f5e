import numpy as np

from .common import DIM, convolved, delta, heads, merged, rms, sigmoid, silu, unit


def definition(c, p, x):
    H, _ = c.sizes(DIM)
    qkv = silu(convolved(x @ p.qkv.kernel, getattr(p, "conv", None), c.short_conv))
    q, k, v = (heads(z, H) for z in np.split(qkv, 3, axis=1))
    beta = sigmoid(x @ p.beta.kernel) * (1 + c.negative_eigenvalues)
    return merged(rms(delta(unit(q), unit(k), v, beta, np.ones_like(beta)), p.norm.scale)) @ p.out.kernel
