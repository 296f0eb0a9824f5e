import numpy as np

from .common import DIM, heads, sigmoid
from .kda import mixed


def definition(c, p, x):
    H, keys, _ = c.sizes(DIM)
    erase, write = (heads(z, H) for z in np.split(sigmoid(x @ p.beta.kernel), [keys], axis=1))
    return mixed(c, p, x, erase * (1 + c.negative_eigenvalues), write)
