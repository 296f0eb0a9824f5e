"""What the definitions share: NumPy in float64, one sequence ``[T, D]`` at a time."""

import math

import numpy as np

DIM = 48
"""The model width at which every mixer is tried."""
LAYER, DEPTH = 1, 3
"""Which layer of how many it is, for what differs by layer."""


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def softplus(x):
    return np.log1p(np.exp(x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def exact_gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))) / 2


def rms(x, scale, eps=1e-5):
    return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + eps) * scale


def layer_normed(x, norm, eps=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, -1, keepdims=True) + eps) * norm.scale + norm.bias


def unit(x):
    return x / np.sqrt(np.sum(x**2, -1, keepdims=True) + 1e-6)


def floors(weights):
    """The floors of all layers' forget gates, from the weights [layers, channels] that all learn together."""
    share = np.exp(weights) / np.exp(weights).sum(0)
    return np.cumsum(share, 0) - share[0]


def convolved(x, conv, width):
    if not width:
        return x
    past = np.concatenate([np.zeros((width - 1, x.shape[1])), x])
    y = np.stack([sum(conv.filter[j] * past[t + j] for j in range(width)) for t in range(len(x))])
    return y + (conv.bias if hasattr(conv, "bias") else 0)


def heads(x, H):
    return x.reshape(len(x), H, -1).transpose(1, 0, 2)


def merged(x):
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)


def delta(q, k, v, beta, decay):
    q, k, y = *(np.repeat(z, len(v) // len(z), axis=0) for z in (q, k)), np.zeros_like(v)
    for h in range(len(v)):
        S = np.zeros((q.shape[2], v.shape[2]))
        for t in range(v.shape[1]):
            S = decay[t, h] * (S - beta[t, h] * np.outer(k[h, t], k[h, t] @ S)) + beta[t, h] * np.outer(
                k[h, t], v[h, t]
            )
            y[h, t] = S.T @ q[h, t] / np.sqrt(q.shape[2])
    return y
