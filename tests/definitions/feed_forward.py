import numpy as np

from .common import silu


def definition(c, p, x):
    gate, value = np.split(x @ p.mlp.up.kernel, 2, axis=1)
    return (silu(gate) * value) @ p.mlp.down.kernel
