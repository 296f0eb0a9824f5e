import numpy as np

from .common import DIM, convolved, delta, heads, merged, rms, sigmoid, silu, softplus, unit


def definition(c, p, x):
    H, keys, _ = c.sizes(DIM)
    qkv = silu(convolved(x @ p.qkv.kernel, getattr(p, "conv", None), c.short_conv))
    q, k, v = (heads(z, H) for z in np.split(qkv, [keys, 2 * keys], axis=1))
    beta = sigmoid(x @ p.beta.kernel) * (1 + c.negative_eigenvalues)
    decay = np.exp(-np.exp(p.A_log) * softplus(x @ p.decay.kernel + p.dt_bias))
    y = delta(unit(q), unit(k), v, beta, decay)
    return merged(rms(y, p.norm.scale) * silu(heads(x @ p.gate.kernel, H))) @ p.out.kernel
