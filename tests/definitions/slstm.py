import numpy as np

from .common import DIM, convolved, heads, merged, sigmoid, silu
from .mlstm import normed


def definition(c, p, x):
    H, n = c.heads, DIM // c.heads
    conv = silu(convolved(x, p.conv, c.short_conv)) if c.short_conv else x
    inputs = ((conv, p.i), (conv, p.f), (x, p.z), (x, p.o))
    gates = np.stack([heads(a, H) @ m.kernel for a, m in inputs], 2)  # head, token, gate, channel
    y = np.zeros((H, len(x), n))
    for j in range(H):
        cell, norm, h = np.zeros((3, n))
        for t in range(len(x)):
            i, f, z, o = gates[j, t] + p.recurrent[j] @ h + p.bias[j]
            cell = sigmoid(f) * cell + np.exp(i) * np.tanh(z)
            norm = sigmoid(f) * norm + np.exp(i)
            h = y[j, t] = sigmoid(o) * cell / norm
    return merged(normed(y)) * p.norm.scale
