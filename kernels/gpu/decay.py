"""Decays inside a GPU kernel's chunk of 64 tokens, of one gate per token and head."""

import jax
import jax.numpy as jnp

from .mosaic import LOG2E, TILE, by_column, by_row, column, indices, row

LEAST = -256.0
"""To the base 2, the least log-decay of one token: 0 in float32. A border of segments is a gate of that size."""


def sums(g: jax.Array, border: jax.Array | None) -> jax.Array:
    """Natural-log gates ``[B, T, H]``, summed from a chunk's beginning, to the base 2: ``[B, H, N, 2, 64]``.

    In two parts whose differences lose nothing: the first is a multiple of 1/256 below 2^15 and so exact in float32,
    the second is at most 1/8. ``border``: ``[B, T]``, where a segment begins.
    """
    g = _with_borders(g, border).swapaxes(1, 2).reshape(g.shape[0], g.shape[2], -1, TILE)
    coarse = jnp.round(g * 256) / 256
    return jnp.cumsum(jnp.stack([coarse, g - coarse], -2), -1)


def _with_borders(g: jax.Array, border: jax.Array | None) -> jax.Array:
    """The gates to the base 2."""
    g = jnp.maximum(g * LOG2E, LEAST)
    return g if border is None else jnp.where(border[..., None], LEAST, g)


def passed(g: jax.Array, border: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """The decays from each token to the end, and from before the beginning to it, ``[B, T, H]``."""
    g = _with_borders(g, border)
    after = jnp.flip(jnp.cumsum(jnp.flip(jnp.pad(g[:, 1:], ((0, 0), (0, 1), (0, 0))), 1), 1), 1)
    return jnp.exp2(after), jnp.exp2(jnp.cumsum(g, 1))


def within_decays(sums, *, rows_later: bool, log_scale: float) -> jax.Array:
    """The decays between the tokens of a chunk, times the scale: from columns to rows, or the other way round."""
    exponent = by_row(column(sums.at[0])) - by_column(row(sums.at[0]))
    exponent += by_row(column(sums.at[1])) - by_column(row(sums.at[1]))
    r, c = indices()
    exponent, meet = (exponent, r >= c) if rows_later else (-exponent, r <= c)
    return jnp.exp2(jnp.where(meet, exponent + log_scale, -jnp.inf))


def enter_decays(sums) -> jax.Array:
    """From the entering state to each token."""
    return jnp.exp2(column(sums.at[0]) + column(sums.at[1]))


def leave_decays(sums) -> jax.Array:
    """From each token to the leaving state."""
    last = sums[0, TILE - 1], sums[1, TILE - 1]
    return jnp.exp2((last[0] - column(sums.at[0])) + (last[1] - column(sums.at[1])))


def through_decay(sums) -> jax.Array:
    """From the entering to the leaving state."""
    return jnp.exp2(sums[0, TILE - 1] + sums[1, TILE - 1])


def gate_gradients(pieces: jax.Array) -> jax.Array:
    """Of the natural-log gates of chunks, ``[..., 64]``, from ``[..., 4, 64]``: cotangents times what they belong to.

    The gate of t decays what passes it: between tokens inside (of the earlier ones the first piece, of the later ones
    the second), from before to tokens (the second too), to after (the third), from before to after (the fourth, which
    is summed).
    """
    earlier, later, after, passing = jnp.moveaxis(pieces, -2, 0)
    until = jnp.flip(jnp.cumsum(jnp.flip(earlier + later, -1), -1), -1)
    before = jnp.cumsum(jnp.pad(after[..., :-1], [(0, 0)] * (after.ndim - 1) + [(1, 0)]), -1)
    return until + before + passing.sum(-1, keepdims=True)
