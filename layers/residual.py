"""Residual streams: what flows through the trunk, how a branch adds to it, and how the trunk runs backwards.

A *branch* is what a block adds: its mixer's output, then its channel mixer's. Streams are float32 whatever the branches
compute in, so that a deep sum loses nothing; a trunk that is rebuilt keeps what float32 rounds off as well (``_plus``).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .base import Side

Streams = Any
"""One array ``[B, ..., D]``, or a pair of them."""
Branch = Callable[[Any, Array, Side, Array | None], tuple[Array, Side]]
"""``(block, x, side, segment_ids) -> (y, side)``: what a block adds to a stream, from what it reads."""


class Sum:
    """One stream: ``x -> x + f(x)``.

    Source: He et al. (2015), Deep residual learning, arXiv 1512.03385.
    """

    def start(self, x: Float[Array, "B ... D"]) -> Streams:
        """The streams before the first branch."""
        return x

    def read(self, streams: Streams) -> Float[Array, "B ... D"]:
        """What the next branch reads."""
        return streams

    def add(self, streams: Streams, y: Float[Array, "B ... D"]) -> Streams:
        """The streams after a branch gave y."""
        return streams + y.astype(streams.dtype)

    def end(self, streams: Streams, *, joined: bool) -> Float[Array, "B ... _"]:
        """What the last norm reads: ``joined`` asks for all streams side by side, where there are several."""
        return streams


class Coupled(Sum):
    """Two streams coupled by addition: ``(a, b) -> (b, a + f(b))``, undone by ``(b, c) -> (c - f(b), b)``.

    A branch reads the stream that was written last and adds to the other. In a block with a channel mixer this is the
    Reformer's ``y1 = x1 + mixer(x2)``, ``y2 = x2 + mlp(y1)``; blocks without one take turns, as in RevNet. As in the
    Reformer both streams start as the embedding and end side by side, which doubles the width of the head; a head
    that is tied to the embedding has no room for that and reads their mean.

    Source: Gomez, Ren, Urtasun & Grosse (2017), The reversible residual network, arXiv 1707.04585; Kitaev, Kaiser &
    Levskaya (2020), Reformer, arXiv 2001.04451; github.com/google/trax.
    """

    step = 1.0

    def start(self, x: Float[Array, "B ... D"]) -> Streams:
        """Both are x."""
        return x, x

    def read(self, streams: Streams) -> Float[Array, "B ... D"]:
        """The stream written last."""
        return streams[1]

    def add(self, streams: Streams, y: Float[Array, "B ... D"]) -> Streams:
        """The other stream is written, and becomes the last."""
        a, b = streams
        return b, a + self.step * y.astype(a.dtype)

    def end(self, streams: Streams, *, joined: bool) -> Float[Array, "B ... _"]:
        """Side by side, or their mean."""
        a, b = streams
        return jnp.concatenate((a, b), axis=-1) if joined else (a + b) / 2


class Midpoint(Coupled):
    """One trajectory by the midpoint rule: ``x_{n+1} = x_{n-1} + 2 f(x_n)``; the two latest points are kept.

    It starts with ``x_{-1} = x_0`` and ends with the last point. The streams of ``Coupled`` with a step of 2, so that
    the sum of branches that reaches the end is about the standard one.

    Source: Chang et al. (2018), Reversible architectures for arbitrarily deep residual neural networks,
    arXiv 1709.03698.
    """

    step = 2.0

    def end(self, streams: Streams, *, joined: bool) -> Float[Array, "B ... D"]:
        """The last point."""
        return streams[1]


RESIDUALS: dict[str, Sum] = {"standard": Sum(), "checkpoint": Sum(), "reversible": Coupled(), "midpoint": Midpoint()}
"""``"checkpoint"`` is the standard sum whose periods are computed again in the backward pass from stored inputs."""


def rebuilt(
    residual: Coupled,
    branches: Sequence[Branch],
    stack: tuple[Any, ...],
    streams: Streams,
    side: Side,
    segment_ids: Int[Array, "B T"] | None = None,
    *,
    stored: bool = False,
) -> tuple[Streams, Side]:
    """Scans blocks over whole sequences, and rebuilds their inputs in the backward pass instead of storing them.

    The backward pass starts from the last streams; each branch, last to first, is computed and differentiated at what
    it had read, and what it had added is taken off again. So memory does not grow with the number of periods, and a
    branch is computed twice, as with ``jax.checkpoint``. That both computations agree needs branches without
    randomness of their own: mixers draw nothing when they run, and what hashes or sparse masks draw is a stored
    constant. What layers hand to later ones is not taken back (see ``MixerConfig.side``): its last value serves all.

    Args:
      residual: the streams.
      branches: what each block adds, in order.
      stack: the blocks of one period, the parameters of each stacked over periods on a leading axis.
      streams: before the first block.
      side: what earlier layers hand on.
      segment_ids: packed documents.
      stored: the same sums, but differentiated as any other function, to compare with.

    Returns:
      The streams after the last block, and the side.
    """
    split = [jax.tree.flatten(block) for block in stack]
    trained = [[jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves] for leaves, _ in split]
    floats = [[x for x, it in zip(xs, its, strict=True) if it] for (xs, _), its in zip(split, trained, strict=True)]
    others = [[x for x, it in zip(xs, its, strict=True) if not it] for (xs, _), its in zip(split, trained, strict=True)]

    def block(j: int, floats: Sequence[Array], others: Sequence[Array]) -> Any:
        of = {True: iter(floats), False: iter(others)}
        return jax.tree.unflatten(split[j][1], [next(of[it]) for it in trained[j]])

    @jax.custom_vjp
    def run(floats, others, streams, side, segment_ids):
        return forward(floats, others, streams, side, segment_ids)[0]

    def forward(floats, others, streams, side, segment_ids):
        def period(carry, leaves):
            (a, b), side = carry
            for j, (fs, os) in enumerate(zip(*leaves, strict=True)):
                for branch in branches:
                    y, side = branch(block(j, fs, os), b[0], side, segment_ids)
                    a, b = b, _plus(a, residual.step * y.astype(jnp.float32))
            return ((a, b), side), None

        exact = tuple((x, jnp.zeros_like(x)) for x in streams)
        (exact, side), _ = jax.lax.scan(period, (exact, side), (floats, others))
        return (tuple(x for x, _ in exact), side), (floats, others, exact, side, segment_ids)

    def backward(kept, cotangents):
        floats, others, exact, side, segment_ids = kept

        def period(carry, leaves):
            exact, d_streams, d_side = carry
            d_floats = []
            for j, (fs, os) in reversed(list(enumerate(zip(*leaves, strict=True)))):
                d_block = [jnp.zeros_like(f) for f in fs]
                for branch in reversed(branches):
                    # One branch after another, or the compiler may rebuild them all before it differentiates the first.
                    exact, d_streams, d_side = jax.lax.optimization_barrier((exact, d_streams, d_side))
                    (b, c), (d_b, d_c) = exact, d_streams
                    run_branch = lambda fs, x, side: branch(block(j, fs, os), x, side, segment_ids)  # noqa: B023, E731
                    (y, _), pull = jax.vjp(run_branch, fs, b[0], side)
                    exact = (_plus(c, -residual.step * y.astype(jnp.float32)), b)
                    d_fs, d_x, d_side = pull(((residual.step * d_c).astype(y.dtype), d_side))
                    d_block = jax.tree.map(jnp.add, d_block, d_fs)
                    d_streams = (d_c, d_b + d_x)
                d_floats.append(d_block)
            return (exact, d_streams, d_side), d_floats[::-1]

        start = (exact, *cotangents)
        (_, d_streams, d_side), d_floats = jax.lax.scan(period, start, (floats, others), reverse=True)
        return d_floats, None, d_streams, d_side, None

    run.defvjp(forward, backward)
    if stored:
        return forward(floats, others, streams, side, segment_ids)[0]
    return run(floats, others, streams, side, segment_ids)


def _plus(x: tuple[Array, Array], y: Array) -> tuple[Array, Array]:
    """The sum of a number kept as two float32, a value and what rounding took from it, and y (Knuth's two-sum).

    What is added can so be taken off again to the last bit of the value. One float32 would not do: a rebuilt input that
    is off by a bit moves some roundings of a branch in bfloat16, and the streams are by the branch before off by that.
    """
    high, low = x
    total = high + y
    back = total - high
    low = low + ((high - (total - back)) + (y - back))
    high = total + low
    return high, low - (high - total)
