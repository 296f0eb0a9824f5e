import numpy as np

from .common import DIM, convolved, sigmoid

VARIANTS = {"heads": {"heads": 4, "expand": 1.5}}


def recurrence(c, p, x, gates, cell):
    """The hidden states by ``cell(h, c, inputs, recurrent) -> (h, c)``, each ``[heads, gates, channels]``."""
    x = convolved(x, getattr(p, "conv", None), c.short_conv)
    n = c.width(DIM) // c.heads
    inputs = (x @ p.inputs.kernel).reshape(len(x), c.heads, gates, n) + p.bias
    h, memory, y = np.zeros((c.heads, n)), np.zeros((c.heads, n)), []
    for t in range(len(x)):
        recurrent = np.einsum("hgij,hj->hgi", p.recurrent, h)
        h, memory = cell(h, memory, inputs[t].swapaxes(0, 1), recurrent.swapaxes(0, 1))
        y.append(h.reshape(-1))
    return np.stack(y) @ p.out.kernel


def cell(h, c, inputs, recurrent):
    i, f, z, o = inputs + recurrent
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(z)
    return sigmoid(o) * np.tanh(c), c


def definition(c, p, x):
    return recurrence(c, p, x, 4, cell)
