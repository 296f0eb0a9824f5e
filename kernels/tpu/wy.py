"""A chunk of the delta rule or dplr inside a TPU kernel, several heads at a time: what ``wy`` is to XLA's.

    S_t = decayed S_{t-1} + b_t u_t^T + k_t v_t^T        u_t = r_t - R_t^T a_t        y_t = scale S_t^T q_t

R_t is the decayed S_{t-1}, or S_{t-1} itself: the decays know. With P and A the decayed scores of q and a against b and
k, the u of a chunk are ``(I + A_b)^-1 (r - A_k v - read(a))``. The delta rule has no k and v, dplr no r.

The backward pass is given the inverse X and the state that entered. X takes twelve of the nineteen products of the
delta rule's forward pass and half the bytes of q and k; the states would need a pass of their own in the other
direction. What takes fewer products is computed again: scores, and u.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .decay import Heads, ScalarDecays, across, after, before, each, iotas, total
from .mosaic import dot
from .triangular import inverse
from .vector_decay import VectorDecays

Decays = ScalarDecays | VectorDecays


class Factors(NamedTuple):
    """What a chunk is made of, per head; r is float32, the rest is what products are taken in."""

    q: Heads
    a: Heads
    b: Heads
    r: Heads | None
    """None: zeros."""
    kv: tuple[Heads, Heads] | None
    """None: nothing is written as it is."""

    @property
    def rights(self) -> list[Heads]:
        """The right factors."""
        return [self.b] if self.kv is None else [self.b, self.kv[0]]

    def asked(self) -> Heads:
        """The left factors, below each other."""
        return each(lambda q, a: jnp.concatenate([q, a]), self.q, self.a)

    def written(self, u: Heads) -> list[Heads]:
        """What is written under the right factors."""
        return [u] if self.kv is None else [u, self.kv[1]]

    def solve(self, A: list[Heads], X: Heads, read: Heads) -> Heads:
        """u."""
        low = self.q[0].dtype
        held = read
        if self.kv is not None:
            held = each(lambda A, v, read: dot(A.astype(low), v) + read, A[-1], self.kv[1], read)
        missing = each(jnp.negative, held) if self.r is None else each(jnp.subtract, self.r, held)
        return each(lambda X, x: dot(X, x.astype(low)), X, missing)


class Forward(NamedTuple):
    """What a chunk gives, per head."""

    y: Heads
    S: Heads
    X: Heads


class Backward(NamedTuple):
    """The cotangents, per head."""

    factors: Factors
    S: Heads
    gate: list[jax.Array]


def _upper(x):
    return x[: x.shape[0] // 2]


def _lower(x):
    return x[x.shape[0] // 2 :]


def _lowered(xs: Heads, low) -> Heads:
    return each(lambda x: x.astype(low), xs)


def forward(decay: Decays, S: Heads, x: Factors, scale: float) -> Forward:
    """The outputs and the state that leaves; states are float32."""
    low = x.q[0].dtype
    P, A = decay.scores(x.q, x.a, x.rights)
    X = _lowered(inverse(A[0], low), low)
    read = decay.read(x.asked(), _lowered(S, low))
    u = x.solve(A, X, each(_lower, read))
    w = x.written(u)
    own = total([each(lambda P, w: dot(P.astype(low), w.astype(low)), *pair) for pair in zip(P, w, strict=True)])
    y = each(lambda own, read: scale * (own + _upper(read)), own, read)
    S = each(jnp.add, decay.keep(S), decay.write(x.rights, w))
    return Forward(y, S, X)


def backward(decay: Decays, S: Heads, X: Heads, x: Factors, scale: float, dy: Heads, dS: Heads) -> Backward:
    """The cotangents for those of the outputs and of the state that leaves, dS. Both states are float32."""
    low, C = x.q[0].dtype, x.q[0].shape[0]
    row, col = iotas(C)
    S_low, dS_low = _lowered(S, low), _lowered(dS, low)
    dy = each(lambda dy: (scale * dy.astype(jnp.float32)).astype(low), dy)
    if x.kv is None:
        P, A = decay.query_scores(x.q, x.rights), []
    else:
        P, A = decay.scores(x.q, x.a, x.rights)
    P = [_lowered(one, low) for one in P]
    u = _lowered(x.solve(A, X, decay.read(x.a, S_low)), low)
    w = x.written(u)

    of_written = decay.write_vjp_u(dS_low, x.rights)
    du = each(lambda P, dy, dw: (dot(P, dy, (0, 0)) + dw).astype(low), P[0], dy, of_written[0])
    dr = each(lambda X, du: dot(X, du, (0, 0)), X, du)
    do = each(lambda dy, dr: jnp.concatenate([dy, (-dr).astype(low)]), dy, dr)
    dv = None
    if x.kv is not None:
        scores = each(lambda P, A: jnp.concatenate([P, A.astype(low)]), P[1], A[1])
        dv = each(lambda s, do, dw: dot(s, do, (0, 0)) + dw, scores, do, of_written[1])

    ds = [list(one) for one in zip(*each(lambda do, *w: across(do, w), do, *w), strict=True)]
    beside = row == col + 1  # after an undecayed read what is at the token before has no gate either
    far = row > col + 1 if decay.undecayed else row > col
    masked = lambda mask, part: [each(lambda s: jnp.where(mask, part(s), 0.0), one) for one in ds]  # noqa: E731
    dq, da, dright = decay.scores_vjp(masked(row > col, _upper), masked(far, _lower), x.q, x.a, x.rights)
    dx, dS_read = decay.read_vjp(do, x.asked(), S_low)
    dq = each(lambda dq, dx: dq + _upper(dx), dq, dx)
    da = each(lambda da, dx: da + _lower(dx), da, dx)
    of_rights = decay.write_vjp_k(dS_low, w)
    kept = decay.keep(dS)
    products = lambda ks, dks: total([each(jnp.multiply, *pair) for pair in zip(ks, dks, strict=True)])  # noqa: E731
    gate = decay.gate(
        each(lambda q, dq, moved: q * dq - moved, x.q, dq, products(x.rights, dright)),
        each(jnp.multiply, x.a, da),
        products(x.rights, of_rights),
        each(jnp.multiply, S, kept),
        low,
    )
    for n, right in enumerate(x.rights):
        own = each(lambda dy, w: jnp.sum(dy.astype(jnp.float32) * w, 1, keepdims=True), dy, w[n])
        dq = each(lambda dq, own, k: dq + own * k, dq, own, right)
        dright[n] = each(lambda dk, dw, own, q: dk + dw + own * q, dright[n], of_rights[n], own, x.q)
        if decay.undecayed:
            nearest = masked(beside & decay.causal, _lower)[n]
            own = each(lambda s: jnp.sum(s, 1, keepdims=True), nearest)
            da = each(lambda da, own, k: da + own * before(k.astype(jnp.float32)), da, own, right)
            dright[n] = each(lambda dk, own, a: dk + after(own * a), dright[n], own, x.a)
    found = Factors(dq, da, dright[0], None if x.r is None else dr, None if dv is None else (dright[1], dv))
    return Backward(found, each(jnp.add, kept, dS_read), gate)
