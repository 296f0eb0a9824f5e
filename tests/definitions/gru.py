import numpy as np

from .common import sigmoid
from .lstm import recurrence

VARIANTS = {"heads": {"heads": 4, "expand": 1.5}}


def cell(h, c, inputs, recurrent):
    r, z = sigmoid(inputs[:2] + recurrent[:2])
    return z * h + (1 - z) * np.tanh(inputs[2] + r * recurrent[2]), c


def definition(c, p, x):
    return recurrence(c, p, x, 3, cell)
