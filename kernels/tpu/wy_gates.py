"""The decays of a grid step from its gates and its segments, inside a TPU kernel."""

import jax
import jax.numpy as jnp

from .decay import ScalarDecays, iotas
from .mosaic import dot
from .vector_decay import VectorDecays

WEAKEST = -128.0
"""Log-gates below this are this: exp of either is 0 in float32."""
GRAIN = 512.0
"""Up to 128 gates that are multiples of 1 / GRAIN have sums that float32 holds exactly."""


def decays(C: int, g: jax.Array | list, ids: list, undecayed: bool) -> ScalarDecays | VectorDecays:
    """The decays of log-gates g: ``[C, heads]``, or one ``[C, K]`` for each head.

    Erasing left factors read up to their own token, or, where ``undecayed``, up to the one before. ``ids`` is
    what ``tpu.blocks.segments_of`` made: empty, or the numbers of the segments as a row and as columns.

    A scalar gate is a multiple of 1/512, whose sums are exact in float32, and the rest, whose sums are small: a
    difference of sums up to two tokens is, of both parts, the sum over the interval but for rounding.
    """
    row, col = iotas(C)
    causal, links = row >= col, None
    if ids:
        numbers = ids[1][...]
        number, before, end = numbers[:, :1], numbers[:, 1:], numbers[C - 1 :, :1]
        links = number == ids[0][...], number == before, number == end, before[:1] == end
        causal &= links[0]
    if isinstance(g, list):
        return VectorDecays(g, links, undecayed)
    hb = g.shape[1]
    g = jnp.maximum(g, WEAKEST)
    coarse = jnp.round(g * GRAIN) / GRAIN
    g = jnp.concatenate([coarse, g - coarse], 1)
    upto = dot((row >= col).astype(jnp.float32), g)
    across = dot(g, (row <= col).astype(jnp.float32), (0, 0))
    rest = upto[C - 1 :] - upto
    enter, leave = jnp.exp(upto[:, :hb] + upto[:, hb:]), jnp.exp(rest[:, :hb] + rest[:, hb:])
    through, until = enter[C - 1 :], jnp.concatenate([jnp.ones_like(enter[:1]), enter[: C - 1]])
    if links is not None:
        masks = *links[1:], links[1]
        enter, leave, through, until = (
            jnp.where(m, x, 0) for m, x in zip(masks, (enter, leave, through, until), strict=True)
        )
    between = lambda upto, n: upto[:, n : n + 1] - across[n : n + 1]  # noqa: E731
    each_head = lambda x: [x[:, h : h + 1] for h in range(hb)]  # noqa: E731
    sums_of = lambda upto: [between(upto, h) + between(upto, hb + h) for h in range(hb)]  # noqa: E731
    erasing = (sums_of(upto - g), each_head(until)) if undecayed else None
    return ScalarDecays(sums_of(upto), causal, each_head(enter), each_head(leave), each_head(through), erasing)
