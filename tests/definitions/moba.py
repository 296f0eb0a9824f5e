import numpy as np

from .attention import attended

SWITCHED = {"kv_heads": 1, "chosen": 3}
CHOOSES = True


def definition(c, p, x):
    def seen(h, t, H, q, k):
        own = t // c.block_size
        score = [q @ k[n * c.block_size : (n + 1) * c.block_size].mean(0) for n in range(own)]
        chosen = [*np.argsort(score)[::-1][: c.chosen - 1], own]
        return np.concatenate([np.arange(n * c.block_size, min((n + 1) * c.block_size, t + 1)) for n in chosen])

    return attended(c, p, x, seen)
