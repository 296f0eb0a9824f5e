"""The backward pass of TPU kernels with one gate per token and head, ``gla``'s and ``mlstm``'s, of a chunk.

Tokens are last, scores transposed and states ``[V, K]``, as in the forward pass: what belongs to a token is a row, and
sums over channels are over sublanes. First come the scores of all heads and their cotangents, while products of other
heads fill the matrix unit, and then what is made of them.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..tpu.mosaic import LANES, Spread, Terms, dot, exact_sums, triangle
from .tpu_blocks import Plan
from .tpu_decays import Decays, last_of, score_products


class Ones:
    """One more row of the values, all ones, of all heads.

    Args:
      state: its part of the state, ``[heads, K]``.
      dstate: the cotangent of that, of the leaving state.
      dy: the cotangent of what is read, ``[heads, C]``.
    """

    def __init__(self, state: jax.Array, dstate: jax.Array, dy: jax.Array):
        self.state, self.dstate, self.dy, self.columns = state, dstate, dy, Spread(state, dstate)


class Rows(NamedTuple):
    """What a chunk's backward pass gives for rows of all heads."""

    gates: jax.Array
    """Gradients of the gates, ``[heads, C]``."""
    keys: jax.Array
    """Keys times their gradients, ``[heads, C]``."""
    ones: list[jax.Array]
    """Of each head the gradient of the entering ``Ones.state``, but for what passes through, ``[1, K]``."""


class Scores(NamedTuple):
    """Of one head, by tiles of tokens that are read, which are rows; columns are those from there on."""

    weights: list[jax.Array]
    cotangents: list[jax.Array]
    """Of the products of keys and queries."""
    ends: jax.Array
    """Cotangents of the logarithms of decays, by the token that reads, ``[1, C]``."""
    begins: jax.Array
    """The same by the token that is read, ``[C, 1]``."""


def scores_and_cotangents(
    plan: Plan, decay: Decays, h: int, products: list[jax.Array], v, dy, ones: Ones | None
) -> Scores:
    """Those of head h."""
    since, weights, cotangents, ends, begins = decay.product_columns(h), [], [], [], []
    row, col = (jax.lax.broadcasted_iota(jnp.int32, (LANES, LANES), axis) for axis in (0, 1))
    for j, product in zip(plan.tiles(), products, strict=True):
        later, within = slice(j.start, plan.C), decay.within(h, j, since)
        found = dot(v[:, j], dy[:, later], (0, 0))
        found = (found if ones is None else found + ones.dy[h : h + 1, later]) * within
        weights.append((product * within).astype(v.dtype))
        cotangents.append(found.astype(v.dtype))
        both = product * found
        pieces = [both[:, m : m + LANES] for m in range(0, both.shape[1], LANES)]
        pieces[0] = jnp.where(row == col, 0, pieces[0])  # a token's own product does not depend on gates
        ends.append(last_of(plan.C, jnp.concatenate([jnp.sum(x, 0, keepdims=True) for x in pieces], 1)))
        begins.append(jnp.sum(sum(pieces), 1, keepdims=True))
    return Scores(weights, cotangents, functools.reduce(jnp.add, ends), jnp.concatenate(begins, 0))


class Gradients(NamedTuple):
    """The gradients of one head in a chunk."""

    q: jax.Array
    """``[K, C]``."""
    k: jax.Array
    """``[K, C]``."""
    v: jax.Array
    """``[V, C]``."""
    ends: jax.Array
    """Of the logarithms of decays, by the token that reads, ``[1, C]``."""
    leave: jax.Array
    """The same by the token that writes into the leaving state, ``[1, C]``."""
    through: jax.Array
    """From state to state, ``[1, 1]``."""


def gradients(
    plan: Plan, decay: Decays, h: int, scores: Scores, q, k, v, dy, state, ds, ones: Ones | None
) -> Gradients:
    """Those of what head h did, but for the entering state's; ``ds`` is the leaving state's."""
    C, low, one = plan.C, state.dtype, slice(h, h + 1)
    dq_read, dk_write = dot(state, dy, (0, 0)), dot(ds.astype(low), v, (0, 0))
    if ones is not None:
        wide = lambda x: jnp.concatenate([x] * (C // LANES), 1)  # noqa: E731
        n, dn = ones.columns.of(h)
        dq_read, dk_write = dq_read + wide(n) * ones.dy[one], dk_write + wide(dn)
    dq_read, dk_write = dq_read * decay.enter[one], dk_write * decay.leave[one]
    dq, dk, dv = [dq_read], [], []
    for j, weights, cotangents in zip(plan.tiles(), scores.weights, scores.cotangents, strict=True):
        later = slice(j.start, C)
        dq.append(last_of(C, dot(k[:, j], cotangents)))
        dk.append(dot(q[:, later], cotangents, (1, 1)))
        dv.append(dot(dy[:, later], weights, (1, 1)))
    return Gradients(
        q=functools.reduce(jnp.add, dq),
        k=jnp.concatenate(dk, 1) + dk_write,
        v=jnp.concatenate(dv, 1) + dot(ds.astype(low), k) * decay.leave[one],
        ends=scores.ends + jnp.sum(q.astype(jnp.float32) * dq_read, 0, keepdims=True),
        leave=jnp.sum(k.astype(jnp.float32) * dk_write, 0, keepdims=True),
        through=decay.through[one] * jnp.sum(state.astype(jnp.float32) * ds, keepdims=True),
    )


def rows_of(xs: list[jax.Array], C: int, n: int) -> jax.Array:
    """Rows ``[1, C]``, or ``[1, 1]`` to be spread, as ``[n, C]`` with zeros below."""
    short = [jnp.zeros((n - len(xs), C), jnp.float32)] if n > len(xs) else []
    return jnp.concatenate([*(jnp.broadcast_to(x, (1, C)) for x in xs), *short], 0)


def columns_as_rows(xs: list[jax.Array], n: int) -> jax.Array:
    """Columns ``[C, 1]`` as ``[n, C]`` with zeros below: put together in lanes, so that one transpose does for all."""
    shape = xs[0].shape[0], LANES
    lane, found = jax.lax.broadcasted_iota(jnp.int32, shape, 1), jnp.zeros(shape, jnp.float32)
    for h, x in enumerate(xs):
        found = jnp.where(lane == h, x, found)
    return found.T[:n]


def gate_gradients(ends: jax.Array, leave: jax.Array, through: jax.Array) -> jax.Array:
    """Those of gates ``[heads, C]`` from those of the logarithms of decays that end at, begin at, and pass a token."""
    C = ends.shape[1]
    return (
        exact_sums(ends, triangle(C, C, lambda i, t: i >= t))
        + exact_sums(leave, triangle(C, C, lambda j, t: j < t))
        + through
    )


def backward(plan: Plan, decay: Decays, inputs: tuple, outputs: tuple, count: int, ones: Ones | None = None) -> Rows:
    """The backward pass of a chunk of a block of heads.

    Args:
      plan: how the arrays are cut.
      decay: the decays.
      inputs: the refs of q, k, v, the cotangent of y, and the entering states.
      outputs: the refs of the gradients of q, k and v, which are written, and of the state, which holds that of the
        leaving one and gets that of the entering one.
      count: how many rows ``Rows`` have.
      ones: one more row of the values.
    """
    (q, k, v, dy, states), (dq, dk, dv, dstate), low = inputs, outputs, inputs[0].dtype
    products = [score_products(plan, q, k, n) for n in range(plan.keys)]
    heads = [(h, n) for n, group in enumerate(plan.groups()) for h in group]
    scores = [scores_and_cotangents(plan, decay, h, products[n], v[0, h], dy[0, h], ones) for h, n in heads]
    entered = None if ones is None else Terms(decay.enter * ones.dy, low)
    found: list[Gradients] = []
    keys, dones = [], []
    for n, group in enumerate(plan.groups()):
        dq_all: Any = 0.0
        dk_all: Any = 0.0
        for h in group:
            one, ds = slice(h, h + 1), dstate[0, h]
            d = gradients(plan, decay, h, scores[h], q[0, n], k[0, n], v[0, h], dy[0, h], states[0, h, 0], ds, ones)
            read = (dy[0, h].astype(jnp.float32) * decay.enter[one]).astype(low)
            read = dot(read if entered is None else entered.below(read), q[0, n], (1, 1))
            dstate[0, h] = decay.through[one] * ds + read[: plan.V]
            dv[0, h] = d.v.astype(dv.dtype)
            dq_all, dk_all = dq_all + d.q, dk_all + d.k
            if entered is not None:
                dones.append(entered.of(h, read))
                keys.append(jnp.sum(k[0, n].astype(jnp.float32) * d.k, 0, keepdims=True))
            found.append(d)
        dq[0, n], dk[0, n] = dq_all.astype(dq.dtype), dk_all.astype(dk.dtype)
    rows = functools.partial(rows_of, C=plan.C, n=count)
    ends = rows([d.ends for d in found]) - columns_as_rows([x.begins for x in scores], count)
    through = rows([d.through for d in found])
    if ones is not None:
        through = through + decay.through * jnp.sum(ones.state * ones.dstate, 1, keepdims=True)
    gates = gate_gradients(ends, rows([d.leave for d in found]), through)
    return Rows(gates, rows(keys), dones)
