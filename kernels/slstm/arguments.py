"""What the kernels of slstm have in common: the axes of its arrays, and the state that they keep."""

from typing import Any

import jax
import jax.numpy as jnp

from . import SLSTMState

PARTS = 4
"""Of the state, and of the gates."""
OUTPUTS = ("B T H D", SLSTMState._make(["B H D"] * PARTS))


def axes(**_) -> dict[str, Any]:
    """The axes of the arrays."""
    return {"gates": "B T H 4 D", "r": "H 4 D D", "initial_state": OUTPUTS[1], "segment_ids": "B T"}


def entering(state: SLSTMState) -> jax.Array:
    """As kernels hold it: ``q = c / n``, 0 where n is, and n, h and m, ``[4, B, H, D]``."""
    c, n, h, m = state
    empty = n == 0
    return jnp.stack([jnp.where(empty, 0, c / jnp.where(empty, 1, n)), n, h, m])


def leaving(state: jax.Array) -> SLSTMState:
    """The inverse."""
    q, n, h, m = state
    return SLSTMState(q * n, n, h, jax.lax.stop_gradient(m))


def of_logarithm(cotangents: jax.Array, state: jax.Array, axis: int) -> jax.Array:
    """That of ``log n`` in place of n's; the parts of the state are in an axis."""
    dq, dn, dh, dm = _parts(cotangents, axis)
    return jnp.stack([dq, dn * _parts(state, axis)[1], dh, dm], axis)


def of_normaliser(cotangents: jax.Array, state: jax.Array, axis: int) -> jax.Array:
    """The inverse: none where n is 0, and none of m, which cotangents may lack."""
    dq, dlog, dh, *_ = _parts(cotangents, axis)
    n = _parts(state, axis)[1]
    empty = n == 0
    dn = jnp.where(empty, 0, dlog / jnp.where(empty, 1, n))
    return jnp.stack([dq, dn, dh, jnp.zeros_like(n)], axis)


def _parts(x: jax.Array, axis: int) -> list[jax.Array]:
    return [jax.lax.index_in_dim(x, k, axis, keepdims=False) for k in range(x.shape[axis])]


def split(x: jax.Array, terms: int) -> jax.Array:
    """As a sum of bfloat16 numbers, which no compiler takes for the whole, ``[terms, ...]``."""
    parts = []
    for _ in range(terms):
        parts.append(jax.lax.reduce_precision(x, 8, 7))
        x = x - parts[-1]
    return jnp.stack(parts).astype(jnp.bfloat16)
