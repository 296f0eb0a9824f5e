import numpy as np

from .common import DIM, convolved, heads, layer_normed, merged, rms

SWITCHED = {"feature_dim": 12}
VARIANTS = {
    "taylor": {"features": "taylor", "feature_dim": 4},
    "square": {"features": "square", "feature_dim": 4},
    "square_rms": {"features": "square", "feature_dim": 4, "normalize": False},
}


def definition(c, p, x):
    H, keys, _ = c.sizes(DIM)
    qkv = convolved(x @ p.qkv.kernel, getattr(p, "conv", None), c.short_conv)
    q, k, v = np.split(qkv, [keys, 2 * keys], axis=1)
    if c.features == "square":
        q, k = layer_normed(q, p.q_norm), layer_normed(k, p.k_norm)
    q, k, v = (heads(z, H) for z in (q, k, v))
    y = np.zeros_like(v)
    for h in range(H):
        for t in range(len(x)):
            if c.features == "elu":
                f = lambda z: np.where(z > 0, z + 1, np.exp(np.minimum(z, 0)))  # noqa: E731
                w = f(k[h, : t + 1]) @ f(q[h, t])
            else:
                s = k[h, : t + 1] @ q[h, t] / np.sqrt(q.shape[2])
                w = s**2 if c.features == "square" else 1 + s + s**2 / 2
            y[h, t] = w @ v[h, : t + 1] / (w.sum() + 1e-6 if c.normalize else 1)
    return merged(y if c.normalize else rms(y, p.norm.scale)) @ p.out.kernel
