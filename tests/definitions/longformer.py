import numpy as np

from .attention import attended

SWITCHED = {"kv_heads": 1, "window": 3, "global_tokens": 2, "dilated_heads": 1}


def definition(c, p, x):
    def seen(h, t, H, q, k):
        gap = c.dilation if h >= H - c.dilated_heads else 1
        near = t - gap * np.arange(c.window)
        return np.union1d(near[near >= 0], np.arange(min(c.global_tokens, t + 1)))

    return attended(c, p, x, seen)
