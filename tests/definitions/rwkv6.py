import numpy as np

from .common import DIM, silu


def definition(c, p, x):
    H, width = c.sizes(DIM)
    S, y, last = np.zeros((H, c.head_dim, c.head_dim)), [], np.zeros(DIM)
    for now in x:
        d = last - now
        low = np.tanh((now + d * p.mix_x) @ p.mix_in.kernel).reshape(5, c.mix_rank)
        w, k, v, r, g = (now + d * (p.mix[i] + low[i] @ p.mix_out[i]) for i in range(5))
        decay = np.exp(-np.exp(p.decay + np.tanh(w @ p.decay_in.kernel) @ p.decay_out.kernel)).reshape(H, -1)
        k, v, r = (z.reshape(H, -1) for z in (k @ p.key.kernel, v @ p.value.kernel, r @ p.receptance.kernel))
        o = np.zeros((H, c.head_dim))
        for h in range(H):
            written = np.outer(k[h], v[h])
            o[h] = r[h] @ (S[h] + p.bonus[h][:, None] * written)
            S[h] = decay[h][:, None] * S[h] + written
        centred = o - o.mean(1, keepdims=True)
        o = (centred / np.sqrt(np.mean(centred**2, 1, keepdims=True) + 64e-5)).reshape(width)
        y.append((o * p.norm.scale + p.norm.bias) * silu(g @ p.gate.kernel))
        last = now
    return np.stack(y) @ p.out.kernel
