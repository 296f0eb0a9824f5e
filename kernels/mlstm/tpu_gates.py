"""mLSTM's gates inside a TPU kernel's chunk, as decays that never grow.

With F the sums of the logarithms of forget gates, the weight of token j at token i is the exponential of
``F_i - F_j + i_j - m_i``: of what reading adds, ``F_i - m_i``, less what writing does, ``F_j - i_j``. Those are
``gla``'s decays, but with different sums on the two sides. Any m will do, since neither y nor ``exp(m) C`` depends on
it: it is rounded up, to a multiple of 1/256 to the base 2, so that what is subtracted is exact.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu

from ..gla.tpu_blocks import Segments
from ..gla.tpu_decays import Decays
from ..tpu.mosaic import LOG2E, Sums, running_sums

WEAKEST = -256.0
"""The strongest forget gate, to the base 2: exp(-177) is left. 256 of them have a sum that float32 holds exactly."""
CLOSED = -20000.0
"""The input gate, as a natural logarithm, of what writes nothing."""
LARGEST = 40 * LOG2E
"""The largest exponent of the least divisor; see ``reference.floor``."""


class Gates(NamedTuple):
    """Of all heads of a block, in rows; to the base 2."""

    until: Sums
    since: Sums
    start: Sums
    """``[heads, 1]``."""
    m: jax.Array
    segments: Segments | None

    @property
    def least(self) -> jax.Array:
        """The least divisor, ``exp(-m)``."""
        return jnp.exp2(jnp.clip(-self.m, -LARGEST, LARGEST))

    def decays(self, scale: jax.Array | None = None) -> Decays:
        """With a factor on what each token reads, ``[heads, C]``."""
        factor = 1.0 if scale is None else two_parts(jnp.log2(scale))
        return Decays(self.until, self.since, self.start, self.segments, factor)


def gates(g: jax.Array, i: jax.Array, start: jax.Array, cut: Segments | None, m: jax.Array | None = None) -> Gates:
    """The gates of a chunk.

    Args:
      g: logarithms of forget gates, ``[heads, C]``.
      i: logarithms of input gates, ``[heads, C]``.
      start: m of the entering state, to the base 2, ``[heads, 1]``.
      cut: the segments.
      m: what this gave before, to have it again; None: the largest of the logarithms of weights, of each token.
    """
    sums, write = running_sums(g, WEAKEST), two_parts(jnp.maximum(i, CLOSED) * LOG2E)
    since = Sums(sums.coarse - write.coarse, sums.fine - write.fine)
    if m is None:
        enters = jnp.broadcast_to(start, g.shape)
        if cut is not None:
            enters = jnp.where(cut.row == cut.before, enters, -jnp.inf)
        m = sums.whole + jnp.maximum(running_max(-since.whole, cut), enters)
        m = jnp.ceil(m * 256) / 256
    first = two_parts(start)
    return Gates(Sums(sums.coarse - m, sums.fine), since, Sums(-first.coarse, -first.fine), m, cut)


def two_parts(x: jax.Array) -> Sums:
    """A multiple of 1/256, and the rest."""
    coarse = jnp.round(x * 256) / 256
    return Sums(coarse, x - coarse)


def running_max(x: jax.Array, cut: Segments | None) -> jax.Array:
    """The largest up to each token of a row, within its segment."""
    C, shift = x.shape[1], 1
    lane = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1)
    number = None if cut is None else jnp.broadcast_to(cut.row, x.shape)

    def earlier(x, shift):
        holds = lane >= shift
        if number is not None:
            holds &= pltpu.roll(number, shift, 1) == number
        return jnp.where(holds, pltpu.roll(x, shift, 1), -jnp.inf)

    while shift < C:  # three at a time: a roll's latency counts, not its work
        shifts = range(shift, min(4 * shift, C), shift)
        x = functools.reduce(jnp.maximum, [earlier(x, n) for n in shifts], x)
        shift *= 4
    return x
