import numpy as np

from .common import DIM, convolved, heads, merged
from .s4d import ssm

VARIANTS = {"single": {"head_dim": 1}}


def definition(c, p, x):
    q, k, v = np.split(x @ p.qkv.kernel + p.qkv.bias, 3, axis=1)
    k = convolved(k, getattr(p, "conv", None), c.short_conv)
    q, k, v = (heads(z, DIM // c.head_dim) for z in (q, k, v))
    o = np.zeros_like(v)
    for i in range(c.head_dim):
        for j in range(c.head_dim):
            kv = (k[:, :, i] * v[:, :, j]).T
            o[:, :, j] += q[:, :, i] * (ssm(p.ssm, kv) + p.D * kv).T
    return merged(o) @ p.out.kernel + p.out.bias
