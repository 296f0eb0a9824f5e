"""What the TPU kernels of gla share: how arrays are cut into blocks, and the calls.

q and k are ``[B, heads, T, K]``, into which XLA writes a projection or a norm over K without a copy; v and y are
``[B, T, heads * V]``, as projections have them, where V fills lanes. The grid is batch, blocks of value heads, chunks.
The state stays in the block of the last state (in the backward pass: of the first state's gradient) over all chunks.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ..mosaic import LANES, call


class Plan(NamedTuple):
    """How the arrays are cut. Hashable: the kernels are compiled for it."""

    C: int
    """Tokens of a chunk, a multiple of 128."""
    heads: int
    """Value heads of a block."""
    keys: int
    """Key heads of a block."""
    K: int
    V: int
    scale: float
    vector: bool
    """Whether there is a gate for every key channel."""

    @property
    def flat(self) -> bool:
        """Whether the values of several heads lie side by side in lanes."""
        return self.V % LANES == 0

    def value(self, head: int, tokens: slice = slice(None)) -> tuple:
        """Where a value head is in a block of v."""
        return (0, tokens, slice(head * self.V, (head + 1) * self.V)) if self.flat else (0, head, tokens)

    def groups(self) -> list[range]:
        """The value heads of each key head of a block."""
        each = self.heads // self.keys
        return [range(n * each, (n + 1) * each) for n in range(self.keys)]

    def tiles(self) -> list[slice]:
        """A chunk in tiles of as many tokens as a register has lanes."""
        return [slice(n, n + LANES) for n in range(0, self.C, LANES)]


class Segments(NamedTuple):
    """Which tokens of a chunk belong together, in both directions."""

    row: jax.Array
    """``[1, C]``."""
    column: jax.Array
    """``[C, LANES]``."""
    before: jax.Array
    """``[1, 1]``: of the entering state."""

    @property
    def last(self) -> jax.Array:
        """``[1, 1]``: of the leaving state."""
        return self.row[:, -1:]


def read_segments(ids) -> Segments | None:
    """The refs of ``[B, 1, T]`` segment numbers and of those of the token before, if there are any."""
    if not ids:
        return None
    number, before = (ref[0] for ref in ids)
    return Segments(number, lanes(jnp.broadcast_to(number, (8, number.shape[1])).T[:, :1]), before[:, :1])


def lanes(column: jax.Array) -> jax.Array:
    """``[C, 1]`` in every lane of ``[C, LANES]``: once, rather than wherever it is used."""
    return jnp.broadcast_to(column, (column.shape[0], LANES))


def where(mask: jax.Array | None, x: jax.Array) -> jax.Array:
    """``x``, or 0 where there is a mask and it does not hold."""
    return x if mask is None else jnp.where(mask, x, 0)


def specs(plan: Plan, chunk: Callable, gate: jax.Array, state: tuple[int, int], shared: int) -> dict[str, pl.BlockSpec]:
    """The blocks of every kind of array.

    ``chunk`` maps the grid's last index to a chunk; ``shared`` blocks of value heads read the same key head.
    """
    at = lambda shape, index: pl.BlockSpec(shape, lambda b, h, c: index(b, h, chunk(c)))  # noqa: E731
    C, heads, K, V = plan.C, plan.heads, plan.K, plan.V
    tokens = lambda n, width: at((1, n, C, width), lambda b, h, c: (b, h, c, 0))  # noqa: E731
    rows = at((1, 1, gate.shape[2], C), lambda b, h, c: (b, h, 0, c))
    return {
        "key": at((1, plan.keys, C, K), lambda b, h, c: (b, h // shared, c, 0)),
        "key gradient": tokens(plan.keys, K),
        "value": at((1, C, heads * V), lambda b, h, c: (b, c, h)) if plan.flat else tokens(heads, V),
        "gate": tokens(heads, K) if plan.vector else rows,
        "state": at((1, heads, *state), lambda b, h, c: (b, h, 0, 0)),
        "states": at((1, heads, 1, *state), lambda b, h, c: (b, h, c, 0, 0)),
        "ids": at((1, 1, C), lambda b, h, c: (b, 0, c)),
    }


def forward(kernel: Callable, name: str, plan: Plan, keep: bool, q, k, v, g, first, ids) -> Any:
    """``y``, the last state and, if they are to be kept, the states that enter the chunks."""
    (B, Hk, T, _), (_, H, *state) = q.shape, first.shape
    spec = specs(plan, lambda c: c, g, tuple(state), max(1, H // Hk // plan.heads))
    shapes, outs = [(v.shape, v.dtype), (first.shape, jnp.float32)], ["value", "state"]
    if keep:
        shapes.append(((B, H, T // plan.C, *state), q.dtype))
        outs.append("states")
    return call(
        functools.partial(kernel, plan, keep, bool(ids)),
        grid=(B, H // plan.heads, T // plan.C),
        in_specs=[spec[name] for name in ("key", "key", "value", "gate", "state", *["ids"] * len(ids))],
        out_specs=[spec[name] for name in outs],
        out_shape=[jax.ShapeDtypeStruct(*shape) for shape in shapes],
        name=name,
    )(q, k, v, g, first, *ids)


def backward(kernel: Callable, name: str, plan: Plan, q, k, v, g, kept, ids, dy, dlast) -> Any:
    """The gradients of q, k, v, g and the first state.

    Those of q and k have a head for every block of value heads: their sum over the blocks that share one is left to do.
    """
    (B, Hk, T, K), (_, H, *state) = q.shape, dlast.shape
    N, blocks = T // plan.C, H // plan.heads
    spec = specs(plan, lambda c: N - 1 - c, g, tuple(state), max(1, H // Hk // plan.heads))
    dkey = ((B, blocks * plan.keys, T, K), q.dtype if blocks * plan.keys == Hk else jnp.float32)
    shapes = [dkey, dkey, (v.shape, v.dtype), (g.shape, jnp.float32), (dlast.shape, jnp.float32)]
    ins = ("key", "key", "value", "gate", "value", "states", "state", *["ids"] * len(ids))
    outs = ("key gradient", "key gradient", "value", "gate", "state")
    return call(
        functools.partial(kernel, plan, bool(ids)),
        grid=(B, blocks, N),
        in_specs=[spec[name] for name in ins],
        out_specs=[spec[name] for name in outs],
        out_shape=[jax.ShapeDtypeStruct(*shape) for shape in shapes],
        name=name,
    )(q, k, v, g, dy, kept, dlast, *ids)
