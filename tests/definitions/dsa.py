import numpy as np

from .attention import attended, rotated, turns
from .common import layer_normed

SWITCHED = {"kv_heads": 1, "index_heads": 3, "index_dim": 6}
CHOOSES = True


def definition(c, p, x):
    N, heads = c.index_dim, c.index_heads
    asks, key, weight = np.split(x @ p.indexer.kernel, [heads * N, (heads + 1) * N], axis=1)
    turn = turns(len(x), N, c.rope_base)
    asks = rotated(asks.reshape(len(x), heads, N).transpose(1, 0, 2), turn)
    key = rotated(layer_normed(key, p.index_norm), turn)

    def seen(h, t, H, q, k):
        score = sum(weight[t, j] * np.maximum(asks[j, t] @ key[: t + 1].T, 0) for j in range(heads))
        return np.argsort(-score, kind="stable")[: c.chosen]  # scores of 0 are common: the earliest win

    return attended(c, p, x, seen)
