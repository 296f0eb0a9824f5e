import numpy as np

from .attention import attended

SWITCHED = {"kv_heads": 1, "block_size": 2, "window": 1, "random": 1, "global_tokens": 1, "seed": 3}


def definition(c, p, x):
    def seen(h, t, H, q, k):
        """The draw is numpy's, seeded by (seed, key head, block): the paper leaves it open."""
        n, whole = t // c.block_size, c.global_tokens // c.block_size  # blocks of global tokens are not drawn
        kv_head = h // (H // (c.kv_heads or H))
        before = np.arange(whole, max(whole, n - c.window + 1))
        drawn = np.random.default_rng([c.seed, kv_head, n]).permutation(before)[: c.random]
        blocks = [*range(max(0, n - c.window + 1), n + 1), *drawn]
        tokens = np.concatenate([b * c.block_size + np.arange(c.block_size) for b in blocks])
        return np.union1d(tokens[tokens <= t], np.arange(min(c.global_tokens, t + 1)))

    return attended(c, p, x, seen)
