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

    number: Int[Array, "*n C"]
    previous: Int[Array, "*n C"]
    """The number of the token before; 0, the initial state's, before the first."""

    @property
    def pair(self) -> Bool[Array, "*n C C"]:
        """Tokens i and j are in one segment."""
        return self.number[..., :, None] == self.number[..., None, :]

    @property
    def enter(self) -> Bool[Array, "*n C"]:
        """Token i is in the segment of the state that enters the chunk."""
        return self.number == self.previous[..., :1]

    @property
    def leave(self) -> Bool[Array, "*n C"]:
        """Token j is in the segment of the state that leaves the chunk."""
        return self.number == self.number[..., -1:]

    @property
    def through(self) -> Bool[Array, "*n"]:
        """The state that enters the chunk is in the segment of the state that leaves it."""
        return self.previous[..., 0] == self.number[..., -1]


def chunk_length(T: int, most: int = 32) -> int:
    """How many tokens to take at once: the power of 2 that holds T, or 32, which was fastest on CPUs for K = V = 64."""
    return min(most, 1 << (T - 1).bit_length())


GROUP = 4
"""The most chunks that ``scan_groups`` takes at once ..."""
TOGETHER = 2**17
"""... where they are small: entries of the states of as many. Both were fastest on two CPU cores."""


def head_first(xs: PyTree, H: int, dtype, *, axis: int = 2) -> PyTree:
    """The leaves ``[B, ..., C, Hk, ...]`` of a chunk as ``[B, H, ..., C, ...]`` of ``dtype``; heads are on ``axis``."""
    return jax.tree.map(lambda x: jnp.moveaxis(repeat_heads(x, H, axis), axis, 1).astype(dtype), xs)


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


def scan_groups(
    step: Step, params: PyTree, state: PyTree, xs: PyTree, ids: Int[Array, "B T"] | None
) -> tuple[Float[Array, "B T H V"], PyTree]:
    """``scan_chunks`` for a step that takes several chunks at once and returns y as ``[B, H, chunks, C, V]``.

    Leaves of x reach the step as ``[B, chunks, C, Hk, ...]``. What does not depend on the state is done for several
    chunks together, which on a CPU costs as many calls as for one; only the state passes from chunk to chunk.
    """
    T = jax.tree.leaves(xs)[0].shape[1]
    fit = TOGETHER // sum(leaf.size for leaf in jax.tree.leaves(state))
    C = chunk_length(T, 32 if fit else 64)
    count = max(1, min(GROUP, -(-T // C), fit))

    def grouped(params, state, x, links):
        x, links = jax.tree.map(lambda z: z.reshape(z.shape[0], count, C, *z.shape[2:]), (x, links))
        state, y = step(params, state, x, links)
        return state, jnp.moveaxis(y, 1, 3).reshape(y.shape[0], count * C, y.shape[1], y.shape[4])

    return scan_chunks(grouped, count * C, params, state, xs, ids)


def _take(xs: PyTree, n: Int[Array, ""] | int, C: int) -> PyTree:
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, n * C, C, 1), xs)


def _put(xs: PyTree, chunk: PyTree, n: Int[Array, ""] | int, C: int) -> PyTree:
    return jax.tree.map(lambda x, c: lax.dynamic_update_slice_in_dim(x, c, n * C, 1), xs, chunk)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def scan_whole_chunks(step, C, params, state, xs, links):
    """``scan_chunks`` where C divides T. ``links``: arrays ``[B, T, ...]`` that have no gradient, or None."""
    return _forward(step, C, params, state, xs, links)[0]


def _states(step, C, params, state, xs, links):
    """Runs the forward pass: ``y``, the last state, and the states that enter the chunks, ``[N, ...]`` each."""
    N = jax.tree.leaves(xs)[0].shape[1] // C
    # A state of zeros must not look like a constant. XLA's CPU compiler would fold it into the only chunk of a short
    # sequence, and some of the kernels that it fuses products with broadcasts into read memory nobody wrote.
    state = lax.optimization_barrier(state)
    y = jax.eval_shape(step, params, state, *_take((xs, links), 0, C))[1]
    y = lax.empty((y.shape[0], N * C, *y.shape[2:]), y.dtype)
    entering = jax.tree.map(lambda s: lax.empty((N, *s.shape), s.dtype), state)

    def body(n, carry):
        state, entering, y = carry
        entering = jax.tree.map(lambda e, s: lax.dynamic_update_index_in_dim(e, s, n, 0), entering, state)
        state, chunk = step(params, state, *_take((xs, links), n, C))
        return state, entering, _put(y, chunk, n, C)

    state, entering, y = lax.fori_loop(0, N, body, (state, entering, y))
    return y, state, entering


def _forward(step, C, params, state, xs, links):
    """Keeps the states, but not where they are far larger than what they are made from: then they are made again."""
    y, last, entering = _states(step, C, params, state, xs, links)
    entries = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
    kept = None if entries(entering) > 2 * entries(xs) else entering
    return (y, last), (params, state, kept, xs, links)


def _backward(step, C, residuals, cotangents):
    params, state, entering, xs, links = residuals
    dy, dstate = cotangents
    dstate = lax.optimization_barrier(dstate)  # as in ``_forward``
    N = dy.shape[1] // C
    if entering is None:
        entering = _states(step, C, params, state, xs, links)[2]

    def body(m, carry):
        n = N - 1 - m
        dparams, dstate, dxs = carry
        x, link = _take((xs, links), n, C)
        state = jax.tree.map(lambda e: lax.dynamic_index_in_dim(e, n, 0, keepdims=False), entering)
        _, vjp = jax.vjp(lambda params, state, x: step(params, state, x, link), params, state, x)
        dp, dstate, dx = vjp((dstate, _take(dy, n, C)))
        return jax.tree.map(jnp.add, dparams, dp), dstate, _put(dxs, dx, n, C)

    zeros = partial(jax.tree.map, jnp.zeros_like)
    dparams, dstate, dxs = lax.fori_loop(
        0, N, body, (zeros(params), dstate, jax.tree.map(lambda x: lax.empty(x.shape, x.dtype), xs))
    )
    return dparams, dstate, dxs, None


scan_whole_chunks.defvjp(_forward, _backward)
