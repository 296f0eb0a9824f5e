import numpy as np

from .common import DIM, convolved, heads, merged, rms, silu


def definition(c, p, x):
    H, keys, _ = c.sizes(DIM)
    qkv = x @ p.qkv.kernel
    if c.short_conv:
        qkv = silu(convolved(qkv, p.conv, c.short_conv))
    q, k, v = (heads(z, H) for z in np.split(qkv, [keys, 2 * keys], axis=1))
    half = c.head_dim // 2
    angle, y = c.rope_base ** (-np.arange(half) / half), np.zeros_like(v)
    q, k = (z[..., :half] + 1j * z[..., half:] for z in (q, k))
    for h in range(H):
        for n in range(len(x)):
            for m in range(n + 1):
                score = np.real(np.sum(q[h, n] * np.exp(1j * (n - m) * angle) * np.conj(k[h, m])))
                y[h, n] += (1 - 2.0 ** (-5 - h)) ** (n - m) * score / np.sqrt(c.head_dim) * v[h, m]
    return merged(rms(y, p.norm.scale) * silu(heads(x @ p.gate.kernel, H))) @ p.out.kernel
