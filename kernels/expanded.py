"""A diagonal recurrence on N states a channel, whose ``[B, T, N, D]`` terms exist for one chunk of time at a time."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int, PyTree, Shaped

from .chunks import scan_chunks
from .linear_scan.xla import scan

LONGEST = 16
"""Tokens taken at once: their terms, for a thousand channels of 16 states, fit a CPU's second-level cache."""

Terms = Callable[[PyTree, PyTree], tuple[Array, Array, Array]]
"""``terms(params, x) -> (a, u, c)`` of one chunk, each of which broadcasts to ``[B, C, N, D]``."""


def scan_expanded(
    terms: Terms, params: PyTree, state: Inexact[Array, "B N D"], xs: PyTree, ids: Int[Array, "B T"] | None, dtype
) -> tuple[Shaped[Array, "B T D"], Inexact[Array, "B N D"]]:
    """``h_t = a_t h_{t-1} + u_t`` and ``y_t = Re sum_n c_t h_t``, with y in ``dtype``.

    ``terms`` is differentiated by JAX, a chunk at a time. Padding reaches it as zeros in every leaf of ``x``, and there
    it must give a = 1, u = 0 and c = 0. Segments need no care: the decay to a segment's first token is cut here.
    """

    def chunk(params, state, x, links):
        a, u, c = terms(params, x)
        B, N, D = state.shape
        shape = (B, jnp.broadcast_shapes(a.shape, u.shape)[1], N, D)
        if links is not None:
            a = jnp.where((links.number == links.previous)[..., None, None], a, 0)
        flat = lambda z: jnp.broadcast_to(z, shape).reshape(B, shape[1], N * D)  # noqa: E731
        h, state = scan(flat(a), flat(u), state.reshape(B, N * D), False)
        y = jnp.sum(h.reshape(shape) * c, axis=2)  # two thirds of the time of a matrix product of one row
        return state.reshape(B, N, D), y.real.astype(dtype)

    T = xs[0].shape[1]
    return scan_chunks(chunk, min(LONGEST, 1 << (T - 1).bit_length()), params, state, xs, ids)
