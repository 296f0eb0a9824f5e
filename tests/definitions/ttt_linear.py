import numpy as np

from .common import DIM, convolved, gelu, heads, merged, sigmoid

SWITCHED = {"block": 4}


def norm(z):
    return (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-6)


def definition(c, p, x):
    """The loss's gradient by the chain rule through the Jacobian of the norm; the map is updated block by block."""
    H, _ = c.sizes(DIM)
    K, M = c.head_dim, c.block
    q = x @ p.query.kernel
    k = heads(convolved(q if c.short_conv else x @ p.key.kernel, getattr(p, "conv_k", None), c.short_conv), H)
    q, v = heads(convolved(q, getattr(p, "conv_q", None), c.short_conv), H), heads(x @ p.value.kernel, H)
    turn = np.exp(1j * np.outer(np.arange(len(x)) % M, c.rope_base ** (-np.arange(K // 2) / (K // 2))))

    def turned(z):
        z = (z[..., : K // 2] + 1j * z[..., K // 2 :]) * turn
        return np.concatenate([z.real, z.imag], axis=-1)

    q, k = turned(q), turned(k)
    eta = c.step_size * sigmoid(x @ p.eta.kernel + p.eta.bias) / K
    s = np.maximum(1 / np.arange(1, M + 1) + p.offset, 0)
    o = np.zeros_like(v)
    for h in range(H):
        W, b = p.W[h], p.c[h]
        for start in range(0, len(x), M):
            G, e = np.zeros((K, K)), np.zeros(K)
            for t in range(start, min(start + M, len(x))):
                z = k[h, t] @ W + b
                deviation = np.sqrt(z.var() + 1e-6)
                unit = norm(z)
                jacobian = (np.eye(K) - 1 / K - np.outer(unit, unit) / K) / deviation
                error = unit * p.scale[h] + p.bias[h] - (v[h, t] - k[h, t])
                u = eta[t, h] * jacobian @ (p.scale[h] * error)
                G, e = G + np.outer(k[h, t], u), e + u
                step = s[t - start]
                read = q[h, t] @ (W - step * G) + b - step * e
                o[h, t] = q[h, t] + norm(read) * p.scale[h] + p.bias[h]
            W, b = W - s[-1] * G, b - s[-1] * e
    y = norm(merged(o)) * p.norm.scale + p.norm.bias
    return (y * gelu(x @ p.gate.kernel)) @ p.out.kernel
