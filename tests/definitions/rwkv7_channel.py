import numpy as np


def definition(c, p, x):
    before = np.concatenate([0 * x[:1], x[:-1]])
    return np.maximum((x + (before - x) * p.mix) @ p.key.kernel, 0) ** 2 @ p.value.kernel
