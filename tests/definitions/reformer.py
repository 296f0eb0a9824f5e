import numpy as np
from flax import nnx

from .attention import rotated, softmax_sum, turns
from .common import DIM, convolved, heads, merged

SWITCHED = {"rope_dim": 6, "rounds": 1, "chunk": 3}
CHOOSES = True


def definition(c, p, x):
    H, _ = c.sizes(DIM)
    directions = np.asarray(c.build(DIM, rngs=nnx.Rngs(0)).directions[...], np.float64)
    qk, v = np.split(heads(convolved(x @ p.qkv.kernel, getattr(p, "conv", None), c.short_conv), 2 * H), 2)
    turned = np.einsum("htk,hkrn->hrtn", qk, directions)
    bucket = np.argmax(np.concatenate([turned, -turned], axis=-1), axis=-1)  # [H, rounds, T]
    qk = rotated(qk, turns(len(x), c.head_dim if c.rope_dim is None else c.rope_dim, c.rope_base))
    k = qk / np.sqrt(np.sum(qk**2, axis=-1, keepdims=True) + 1e-6)
    y = np.zeros_like(v)
    for h in range(H):
        for t in range(len(x)):
            seen = set()
            for r in range(c.rounds):
                alike = np.flatnonzero(bucket[h, r, : t + 1] == bucket[h, r, t])  # the last one is t itself
                seen |= set(alike[max(0, (len(alike) - 1) // c.chunk - 1) * c.chunk :])
            others = sorted(seen - {t})
            y[h, t] = softmax_sum(qk[h, t], k[h], v[h], np.array(others)) if others else v[h, t]
    return merged(y) @ p.out.kernel
