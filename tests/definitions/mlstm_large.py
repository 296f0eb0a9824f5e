import numpy as np

from .common import convolved, heads, merged, sigmoid
from .mlstm import memory, normed

SWITCHED = {"norm_eps": 0.1}


def definition(c, p, x):
    x = convolved(x, getattr(p, "conv", None), c.short_conv)
    i, f = np.split(c.cap * np.tanh((x @ p.gates.kernel + p.gate_bias) / c.cap), 2, axis=1)
    q, k, v = (heads(x @ m.kernel, c.heads) for m in (p.q, p.k, p.v))
    h = memory(q, k, v, i, f)
    return (merged(normed(h, c.norm_eps)) * p.norm.scale * sigmoid(x @ p.o.kernel)) @ p.out.kernel
