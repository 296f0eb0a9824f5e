import numpy as np

from .common import DIM, convolved, delta, heads, merged, rms, sigmoid, silu, softplus, unit

SWITCHED = {"heads": 4, "key_heads": 2, "expand_v": 1, "norm_eps": 0.1}


def definition(c, p, x):
    H, keys, _ = c.sizes(DIM)
    qkv = silu(convolved(x @ p.qkv.kernel, getattr(p, "conv", None), c.short_conv))
    q, k, v = np.split(qkv, [keys, 2 * keys], axis=1)
    q, k, v = heads(q, keys // c.head_dim), heads(k, keys // c.head_dim), heads(v, H)
    beta = sigmoid(x @ p.beta.kernel) * (1 + c.negative_eigenvalues)
    decay = np.exp(-np.exp(p.A_log) * softplus(x @ p.decay.kernel + p.dt_bias))
    y = delta(unit(q), unit(k), v, beta, decay)
    return merged(rms(y, p.norm.scale, c.norm_eps) * silu(heads(x @ p.gate.kernel, H))) @ p.out.kernel
