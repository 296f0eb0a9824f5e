import numpy as np

from .attention import finished, projected, softmax_sum
from .common import sigmoid

SWITCHED = {"kv_heads": 1, "window": 3, "chosen": 4}
CHOOSES = True


def definition(c, p, x):
    q, keys, values = projected(c, p, x)
    H, size = len(q), c.block_size
    (k_c, k_s, k_w), (v_c, v_s, v_w) = np.split(keys, 3), np.split(values, 3)
    gates = sigmoid(x @ p.branches.kernel).reshape(len(x), 3, H)
    y, group = np.zeros_like(q), H // len(k_c)
    for t in range(len(x)):
        for j in range(len(k_c)):
            whole, own = (t + 1) // size, t // size
            block = lambda z, w: np.array([(w * z[n * size :][:size]).sum(0) for n in range(whole)])  # noqa: B023, E731
            k, v, weight = block(k_c[j], p.k_pool), block(v_c[j], p.v_pool), np.zeros(own)
            for h in range(j * group, (j + 1) * group):
                if whole:
                    y[h, t] += gates[t, 0, h] * softmax_sum(q[h, t], k, v, np.arange(whole))
                    p_c = np.exp(k @ q[h, t] / np.sqrt(c.head_dim))
                    weight += (p_c / p_c.sum())[:own]
            always = {own, own - 1, 0} & set(range(own + 1))
            others = [n for n in np.argsort(-weight) if n not in always]
            chosen = [*always, *others[: c.chosen - 3]]
            tokens = np.concatenate([np.arange(n * size, min((n + 1) * size, t + 1)) for n in chosen])
            for h in range(j * group, (j + 1) * group):
                y[h, t] += gates[t, 1, h] * softmax_sum(q[h, t], k_s[j], v_s[j], tokens)
                near = np.arange(max(0, t - c.window + 1), t + 1)
                y[h, t] += gates[t, 2, h] * softmax_sum(q[h, t], k_w[j], v_w[j], near)
    return finished(c, p, x, y)
