"""Packed documents: what ``segment_ids`` means, computed once for every op."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree


class Segments(NamedTuple):
    """``segment_ids`` in the form that recurrences use.

    ``number[b, t]`` counts the segments begun up to t, from 0: two tokens belong together iff their numbers agree, and
    number 0 continues ``initial_state``. Padding inherits the number before it, so that the state holds through it.
    """

    number: Int[Array, "B T"]
    valid: Bool[Array, "B T"]

    @property
    def first(self) -> Bool[Array, "B T"]:
        """True at the tokens before which the state is reset."""
        return jnp.diff(self.number, axis=1, prepend=0) > 0


def segments(ids: Int[Array, "B T"]) -> Segments:
    """Numbers the segments of ``ids``; a negative id is padding, wherever it stands."""
    valid = ids >= 0
    position = jnp.arange(ids.shape[1])
    last = jax.lax.cummax(jnp.where(valid, position, -1), axis=1)  # the last valid position up to and including t
    before = jnp.concatenate([jnp.full_like(last[:, :1], -1), last[:, :-1]], axis=1)
    previous = jnp.take_along_axis(ids, jnp.maximum(before, 0), axis=1)
    first = valid & (before >= 0) & (previous != ids)
    return Segments(jnp.cumsum(first, axis=1, dtype=jnp.int32), valid)


def scan_tokens(step: Callable, state: PyTree, xs: PyTree, ids: Int[Array, "B T"] | None) -> tuple[PyTree, Array]:
    """Runs ``step(state, x_t) -> (state, y_t)`` over axis 1 of ``xs``, with resets and padding as ``ids`` says.

    This is what every reference implementation is made of. Leaves of the state and ``y_t`` have B as axis 0.
    """
    time_first = lambda x: jnp.moveaxis(x, 1, 0)  # noqa: E731
    if ids is None:
        state, y = jax.lax.scan(step, state, jax.tree.map(time_first, xs))
        return state, jax.tree.map(time_first, y)
    seg = segments(ids)

    def where(mask, a, b):
        return jax.tree.map(lambda a, b: jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - 1)), a, b), a, b)

    def masked(old, inputs):
        x, first, valid = inputs
        new, y = step(where(first, jax.tree.map(jnp.zeros_like, old), old), x)
        return where(valid, new, old), where(valid, y, jax.tree.map(jnp.zeros_like, y))

    state, y = jax.lax.scan(masked, state, jax.tree.map(time_first, (xs, seg.first, seg.valid)))
    return state, jax.tree.map(time_first, y)
