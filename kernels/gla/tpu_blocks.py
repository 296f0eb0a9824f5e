"""What the TPU kernels of gla share: how arrays are cut into blocks, and the calls.

With one gate for all channels of a head everything has its tokens last, ``[B, heads, K, T]`` and ``[B, heads, V, T]``:
that is how XLA lays out a norm over K, and products take and give it as it is, so that nothing is copied. With a gate
for every channel q and k are ``[B, heads, T, K]``, which costs a copy of their gradients, and v and y are
``[B, T, heads * V]`` where V fills lanes. The grid is batch, blocks of value heads, chunks.
The state stays in the block of the last state (in the backward pass: of the first state's gradient) over all chunks.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ..tpu.mosaic import LANES, call

SUBLANES = 16
"""K and V are padded to multiples of it, the rows of a register of bfloat16."""


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
        return self.vector and self.V % LANES == 0

    def value(self, head: int) -> tuple:
        """Where a value head is in a block of v."""
        return (0, slice(None), slice(head * self.V, (head + 1) * self.V)) if self.flat else (0, head)

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


def arrange(q, k, v, number, *, C: int, width: int, scale: float, vector: bool = False) -> tuple[Plan, tuple, tuple]:
    """The plan, and q, k, v and the segments' numbers in whole chunks and whole registers, in the kernels' layouts.

    Args:
      q: ``[B, T, Hk, K]``.
      k: ``[B, T, Hk, K]``.
      v: ``[B, T, H, V]``.
      number: counts the segments, ``[B, T]``, or None.
      C: the most tokens of a chunk.
      width: the most columns of a block of heads.
      scale: on q.
      vector: whether there is a gate for every key channel.
    """
    (B, T, H, V), (Hk, K) = v.shape, q.shape[2:]
    C = min(C, -(-T // LANES) * LANES)
    short, short_k, short_v = -T % C, -K % SUBLANES, -V % SUBLANES
    heads = block_heads(H, H // Hk, max(K + short_k, V + short_v, LANES), width)
    plan = Plan(C, heads, max(1, heads * Hk // H), K + short_k, V + short_v, scale, vector)
    q, k, v = (pad(x, short, n) for x, n in ((q, short_k), (k, short_k), (v, short_v)))
    ids = ()
    if number is not None:
        before = jnp.pad(number[:, :-1], ((0, 0), (1, 0)))
        ids = tuple(jnp.pad(x, ((0, 0), (0, short)), "edge")[:, None].astype(jnp.float32) for x in (number, before))
    if not vector:
        return plan, tuple(x.transpose(0, 2, 3, 1) for x in (q, k, v)), ids
    v = v.reshape(B, T + short, -1) if plan.flat else v.swapaxes(1, 2)
    return plan, (q.swapaxes(1, 2), k.swapaxes(1, 2), v), ids


def pad(x: jax.Array, tokens: int, width: int) -> jax.Array:
    """``[B, T, n, width]`` with more tokens and more columns."""
    return jnp.pad(x, ((0, 0), (0, tokens), (0, 0), (0, width)))


def rows(plan: Plan, x: jax.Array, fill: float = 0.0) -> jax.Array:
    """``[B, T, H]`` as ``[B, blocks, heads of a block, T]``, in whole chunks and a multiple of 8 heads."""
    B, T, H = x.shape
    x = jnp.pad(x, ((0, 0), (0, -T % plan.C), (0, 0)), constant_values=fill).swapaxes(1, 2)
    x = x.reshape(B, H // plan.heads, plan.heads, -1)
    return jnp.pad(x, ((0, 0), (0, 0), (0, -plan.heads % 8), (0, 0)))


def outputs(plan: Plan, y: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """``y`` as ``[B, T, H, V]`` from its layout in the kernels."""
    B, T, H, V = shape
    if not plan.vector:
        return y.transpose(0, 3, 1, 2)[:, :T, :, :V]
    y = y.reshape(B, -1, H, plan.V) if plan.flat else y.swapaxes(1, 2)
    return y[:, :T, :, :V]


def joined(dx: jax.Array, x: jax.Array) -> jax.Array:
    """The gradient of x: the sum over the blocks of value heads that share a key head."""
    return dx if dx.shape == x.shape else dx.reshape(*x.shape[:2], -1, *x.shape[2:]).sum(2).astype(x.dtype)


def block_heads(H: int, group: int, width: int, most: int) -> int:
    """Value heads of a block: whole groups that share a key head, or a part of one."""
    fits = [n for n in range(1, H + 1) if H % n == 0 and (n % group == 0 or group % n == 0) and n * width <= most]
    return max(fits)


def specs(plan: Plan, chunk: Callable, gate: jax.Array, state: tuple[int, int], shared: int) -> dict[str, pl.BlockSpec]:
    """The blocks of every kind of array.

    ``chunk`` maps the grid's last index to a chunk; ``shared`` blocks of value heads read the same key head.
    """
    at = lambda shape, index: pl.BlockSpec(shape, lambda b, h, c: index(b, h, chunk(c)))  # noqa: E731
    C, heads, K, V = plan.C, plan.heads, plan.K, plan.V

    def tokens(n: int, width: int, shared: int = 1) -> pl.BlockSpec:
        if plan.vector:
            return at((1, n, C, width), lambda b, h, c: (b, h // shared, c, 0))
        return at((1, n, width, C), lambda b, h, c: (b, h // shared, 0, c))

    rows = at((1, 1, gate.shape[2], C), lambda b, h, c: (b, h, 0, c))
    return {
        "key": tokens(plan.keys, K, shared),
        "key gradient": tokens(plan.keys, K),
        "value": at((1, C, heads * V), lambda b, h, c: (b, c, h)) if plan.flat else tokens(heads, V),
        "gate": tokens(heads, K) if plan.vector else rows,
        "state": at((1, heads, *state), lambda b, h, c: (b, h, 0, 0)),
        "states": at((1, heads, 1, *state), lambda b, h, c: (b, h, c, 0, 0)),
        "ids": at((1, 1, C), lambda b, h, c: (b, 0, c)),
    }


def forward(kernel: Callable, name: str, plan: Plan, keep: bool, q, k, v, g, first, ids) -> Any:
    """``y``, the last state and, if they are to be kept, the states that enter the chunks."""
    (B, Hk, *_), (_, H, *state), T = q.shape, first.shape, g.shape[2 if plan.vector else 3]
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
    (B, Hk, *tokens), (_, H, *state), T = q.shape, dlast.shape, g.shape[2 if plan.vector else 3]
    N, blocks = T // plan.C, H // plan.heads
    spec = specs(plan, lambda c: N - 1 - c, g, tuple(state), max(1, H // Hk // plan.heads))
    dkey = ((B, blocks * plan.keys, *tokens), q.dtype if blocks * plan.keys == Hk else jnp.float32)
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
