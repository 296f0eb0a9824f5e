"""A chunk of the delta rule inside a TPU kernel, several heads at a time: what ``wy`` is to the XLA implementations.

    u_t = r_t - S'^T a_t    S_t = S' + k_t u_t^T    y_t = scale S_t^T q_t        S' = decayed S_{t-1}

With P and A the decayed scores of q and a against k, the u of a chunk are ``(I + A)^-1 (r - read(a))``.

The backward pass is given the inverse X and the state that entered. X takes twelve of the nineteen products of the
forward pass and half the bytes of q and k; the states would need a pass of their own in the other direction. What takes
a product or two is computed again: P, and u.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .decay_tpu import Heads, ScalarDecays, each, iotas
from .mosaic import dot
from .triangular_tpu import inverse
from .vector_decay_tpu import VectorDecays


class Forward(NamedTuple):
    """What a chunk gives, per head."""

    y: Heads
    S: Heads
    X: Heads


class Backward(NamedTuple):
    """The cotangents, per head; ``gate`` is of all heads' gates, side by side."""

    q: Heads
    a: Heads
    k: Heads
    r: Heads
    S: Heads
    gate: list[jax.Array]


def _upper(x):
    return x[: x.shape[0] // 2]


def _lower(x):
    return x[x.shape[0] // 2 :]


def forward(
    decay: ScalarDecays | VectorDecays, S: Heads, q: Heads, a: Heads, k: Heads, r: Heads, scale: float
) -> Forward:
    """The state that leaves and the outputs. S and r are float32; q, a and k are what products are taken in."""
    low, C = q[0].dtype, q[0].shape[0]
    row, col = iotas(C)
    P, A = decay.scores(q, a, k)
    X = each(lambda X: X.astype(low), inverse(each(lambda A: jnp.where(row > col, A, 0.0), A), low))
    x = each(lambda q, a: jnp.concatenate([q, a]), q, a)
    read = decay.read(x, each(lambda S: S.astype(low), S))
    u = each(lambda X, r, read: dot(X, (r - _lower(read)).astype(low)), X, r, read)
    y = each(lambda P, u, read: scale * (dot(P.astype(low), u.astype(low)) + _upper(read)), P, u, read)
    S = each(jnp.add, decay.keep(S), decay.write(k, u))
    return Forward(y, S, X)


def backward(
    decay: ScalarDecays | VectorDecays,
    S: Heads,
    X: Heads,
    q: Heads,
    a: Heads,
    k: Heads,
    r: Heads,
    scale: float,
    dy: Heads,
    dS: Heads,
) -> Backward:
    """The cotangents for those of the outputs and of the state that leaves, dS. Both states are float32."""
    low, C = q[0].dtype, q[0].shape[0]
    row, col = iotas(C)
    lowered = lambda xs: each(lambda x: x.astype(low), xs)  # noqa: E731
    x = each(lambda q, a: jnp.concatenate([q, a]), q, a)
    dS_low = lowered(dS)
    dy = each(lambda dy: (scale * dy.astype(jnp.float32)).astype(low), dy)
    P = lowered(decay.query_scores(q, k))
    read = decay.read(a, lowered(S))
    u = lowered(each(lambda X, r, read: dot(X, (r - read).astype(low)), X, r, read))

    du = each(lambda P, dy, w: (dot(P, dy, (0, 0)) + w).astype(low), P, dy, decay.write_vjp_u(dS_low, k))
    dr = each(lambda X, du: dot(X, du, (0, 0)), X, du)
    do = each(lambda dy, dr: jnp.concatenate([dy, (-dr).astype(low)]), dy, dr)
    ds = each(lambda do, u: dot(do, u, (1, 1)), do, u)
    strict = lambda x: jnp.where(row > col, x, 0.0)  # noqa: E731
    dq, da, dk = decay.scores_vjp(each(lambda s: strict(_upper(s)), ds), each(lambda s: strict(_lower(s)), ds), q, a, k)
    dx, dS_read = decay.read_vjp(do, x, lowered(S))
    dq = each(lambda dq, dx: dq + _upper(dx), dq, dx)
    da = each(lambda da, dx: da + _lower(dx), da, dx)
    written = decay.write_vjp_k(dS_low, u)
    kept = decay.keep(dS)
    gate = decay.gate(
        each(lambda q, dq, a, da, k, dk: q * dq + a * da - k * dk, q, dq, a, da, k, dk),
        each(jnp.multiply, k, written),
        each(jnp.multiply, S, kept),
        low,
    )
    own = each(lambda dy, u: jnp.sum(dy.astype(jnp.float32) * u, 1, keepdims=True), dy, u)
    dq = each(lambda dq, own, k: dq + own * k, dq, own, k)
    dk = each(lambda dk, written, own, q: dk + written + own * q, dk, written, own, q)
    dS = each(jnp.add, kept, dS_read)
    return Backward(dq, da, dk, dr, dS, gate)
