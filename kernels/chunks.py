"""A recurrence over chunks of time: inside a chunk all tokens at once, one chunk after the other, memory linear in T.

The forward pass keeps only the state that enters each chunk. The backward pass takes the chunks last first, runs each
again and differentiates it by itself: no more than one chunk's intermediate values exist at any time, and on a CPU they
stay in its cache.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from .heads import repeat_heads
from .segments import segments


class Links(NamedTuple):
    """Which tokens of a chunk belong together. ``number`` counts segments, as in ``Segments``."""

    number: Int[Array, "B C"]
    previous: Int[Array, "B C"]
    """The number of the token before; 0, the initial state's, before the first."""

    @property
    def pair(self) -> Bool[Array, "B C C"]:
        """Tokens i and j are in one segment."""
        return self.number[:, :, None] == self.number[:, None, :]

    @property
    def enter(self) -> Bool[Array, "B C"]:
        """Token i is in the segment of the state that enters the chunk."""
        return self.number == self.previous[:, :1]

    @property
    def leave(self) -> Bool[Array, "B C"]:
        """Token j is in the segment of the state that leaves the chunk."""
        return self.number == self.number[:, -1:]

    @property
    def through(self) -> Bool[Array, " B"]:
        """The state that enters the chunk is in the segment of the state that leaves it."""
        return self.previous[:, 0] == self.number[:, -1]


def chunk_length(T: int) -> int:
    """How many tokens to take at once: the power of 2 that holds T, or 32, which was fastest on CPUs for K = V = 64."""
    return min(32, 1 << (T - 1).bit_length())


def head_first(xs: PyTree, H: int, dtype) -> PyTree:
    """The leaves ``[B, C, Hk, ...]`` of a chunk as ``[B, H, C, ...]`` of ``dtype``."""
    return jax.tree.map(lambda x: jnp.moveaxis(repeat_heads(x, H), 2, 1).astype(dtype), xs)


def matmul_precision(dtype):
    """The context in which a chunk runs: float32 products are float32 products, also where the hardware has others."""
    return jax.default_matmul_precision("default" if dtype == jnp.bfloat16 else "highest")


Step = Callable[[PyTree, PyTree, PyTree, Links | None], tuple[PyTree, Array]]
"""``step(params, state, x, links) -> (state, y)`` runs one chunk: ``x`` and ``y`` are ``[B, C, ...]``."""


def scan_chunks(
    step: Step, C: int, params: PyTree, state: PyTree, xs: PyTree, ids: Int[Array, "B T"] | None
) -> tuple[Float[Array, "B T ..."], PyTree]:
    """Runs ``step`` over chunks of C tokens of ``xs``, whose leaves are ``[B, T, ...]``; T need not be a multiple.

    Padding, by ``ids`` or at the end of the last chunk, reaches ``step`` as zeros in every leaf of ``x``: a step must
    hold its state and give y = 0 there. ``links`` is None if ``ids`` is.
    """
    T = jax.tree.leaves(xs)[0].shape[1]
    links = None
    if ids is not None:
        number, valid = segments(ids)
        xs = jax.tree.map(lambda x: jnp.where(valid.reshape(valid.shape + (1,) * (x.ndim - 2)), x, 0), xs)
        links = Links(number, jnp.pad(number[:, :-1], ((0, 0), (1, 0))))
    if short := -T % C:
        pad = lambda x, mode: jnp.pad(x, ((0, 0), (0, short), *[(0, 0)] * (x.ndim - 2)), mode=mode)  # noqa: E731
        xs = jax.tree.map(lambda x: pad(x, "constant"), xs)
        links = jax.tree.map(lambda x: pad(x, "edge"), links)
    y, state = scan_whole_chunks(step, C, params, state, xs, links)
    return y[:, :T], state


def _take(xs: PyTree, n: Int[Array, ""] | int, C: int) -> PyTree:
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, n * C, C, 1), xs)


def _put(xs: PyTree, chunk: PyTree, n: Int[Array, ""] | int, C: int) -> PyTree:
    return jax.tree.map(lambda x, c: lax.dynamic_update_slice_in_dim(x, c, n * C, 1), xs, chunk)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def scan_whole_chunks(step, C, params, state, xs, links):
    """``scan_chunks`` where C divides T. ``links``: arrays ``[B, T, ...]`` that have no gradient, or None."""
    return _forward(step, C, params, state, xs, links)[0]


def _forward(step, C, params, state, xs, links):
    N = jax.tree.leaves(xs)[0].shape[1] // C
    # A state of zeros must not look like a constant. XLA's CPU compiler would fold it into the only chunk of a short
    # sequence, and some of the kernels that it fuses products with broadcasts into read memory nobody wrote.
    state = lax.optimization_barrier(state)
    y = jax.eval_shape(step, params, state, *_take((xs, links), 0, C))[1]
    y = jnp.zeros((y.shape[0], N * C, *y.shape[2:]), y.dtype)
    entering = jax.tree.map(lambda s: jnp.zeros((N, *s.shape), s.dtype), state)

    def body(n, carry):
        state, entering, y = carry
        entering = jax.tree.map(lambda e, s: lax.dynamic_update_index_in_dim(e, s, n, 0), entering, state)
        state, chunk = step(params, state, *_take((xs, links), n, C))
        return state, entering, _put(y, chunk, n, C)

    state, entering, y = lax.fori_loop(0, N, body, (state, entering, y))
    return (y, state), (params, entering, xs, links)


def _backward(step, C, residuals, cotangents):
    params, entering, xs, links = residuals
    dy, dstate = cotangents
    dstate = lax.optimization_barrier(dstate)  # as in ``_forward``
    N = dy.shape[1] // C

    def body(m, carry):
        n = N - 1 - m
        dparams, dstate, dxs = carry
        x, link = _take((xs, links), n, C)
        state = jax.tree.map(lambda e: lax.dynamic_index_in_dim(e, n, 0, keepdims=False), entering)
        _, vjp = jax.vjp(lambda params, state, x: step(params, state, x, link), params, state, x)
        dp, dstate, dx = vjp((dstate, _take(dy, n, C)))
        return jax.tree.map(jnp.add, dparams, dp), dstate, _put(dxs, dx, n, C)

    zeros = partial(jax.tree.map, jnp.zeros_like)
    dparams, dstate, dxs = lax.fori_loop(0, N, body, (zeros(params), dstate, zeros(xs)))
    return dparams, dstate, dxs, None


scan_whole_chunks.defvjp(_forward, _backward)
