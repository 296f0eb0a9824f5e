"""The GPU kernels of sLSTM: a block walks over all tokens of a head and of 1 or 8 sequences, its matrices on chip.

The matrices are the left factor of a product, 64 rows a warpgroup and gate; what changes with every token is the right
one, sequences in its columns. So a warpgroup has the four gates and the state of its own 64 channels in registers, and
what the others must know, the hidden state or backward the gradients of the pre-activations, goes through one of two
buffers in turn. In it numbers are sums of bfloat16 terms, side by side: the product costs what it costs to read the
matrices, whatever stands in its columns. What the next token needs is read while a token waits for its product.

Arrays are ``[H, blocks of sequences, T, warpgroups, parts * 64, 8]``. A block of one sequence has no last axis, and
copies of it are the columns of its products. The state is held as on TPUs, see ``tpu_cell``.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from ..gpu import mosaic
from ..gpu.mosaic import LAYOUT, TILE
from .arguments import PARTS

COLUMNS = 8
"""The fewest that a product has, a sequence in each."""
KEPT = 6
"""Of a token for the backward pass: sigmoid(o), q before it, α, ω, sigmoid(-f) and tanh(z)."""


class Plan(NamedTuple):
    """Everything static about a call."""

    sequences: int
    """Of a block, 1 or 8."""
    groups: int
    """Warpgroups of a block, each of which has 64 channels."""
    terms: int
    """How many bfloat16 numbers make one of R."""
    masked: bool
    """Whether tokens are marked: 1 where the state is reset before them, -1 where it holds."""

    @property
    def D(self) -> int:
        """Channels of a head, padded."""
        return self.groups * TILE

    @property
    def copies(self) -> int:
        """How many bfloat16 numbers make one of what meets R: a power of two, for the sake of its layout."""
        return 2 if self.terms == 1 else 4

    @property
    def columns(self) -> int:
        """Of the right factor."""
        return self.copies * COLUMNS

    @property
    def tile(self) -> tuple[int, ...]:
        """The shape of 64 channels of a block's sequences."""
        return (TILE, COLUMNS)[: 1 if self.sequences == 1 else 2]

    @property
    def layout(self) -> Any:
        """How these lie in registers."""
        return LAYOUT.reduce(1) if self.sequences == 1 else LAYOUT

    @property
    def memory(self) -> int:
        """Bytes of shared memory that the backward pass takes, which takes more."""
        return 2 * PARTS * self.D * (self.terms * self.D + 2 * self.columns)

    def scratch(self, rows: int, inner: int) -> list[Any]:
        """Matrices of so many rows a warpgroup, two right factors, and barriers: one's copy has come, all are there."""
        transforms = plgpu.TilingTransform((8, self.columns)), plgpu.SwizzleTransform(2 * self.columns)  # pyright: ignore[reportAbstractUsage]
        shared = lambda *shape: plgpu.SMEM(shape, jnp.bfloat16, transforms=transforms)  # noqa: E731
        return [
            shared(self.groups, self.terms * rows, inner),
            shared(2, inner, self.columns),
            plgpu.Barrier(num_arrivals=1, num_barriers=self.groups),
            plgpu.Barrier(num_arrivals=self.groups),
        ]


class _Block:
    """Where a warpgroup is, and what it does with the others."""

    def __init__(self, plan: Plan, R, marks, weights, factors, copied, met):
        self.plan, self.marks, self.factors, self.met = plan, marks, factors, met
        self.head, self.block, self.group = (lax.axis_index(name) for name in ("head", "block", "group"))
        self.weights = weights.at[self.group]
        plgpu.copy_gmem_to_smem(R.at[self.head, self.group], self.weights, copied.at[self.group])
        plgpu.barrier_wait(copied.at[self.group])

    def load(self, ref, t) -> jax.Array:
        """What this warpgroup has of a token, in registers."""
        return plgpu.load(ref.at[self.head, self.block, t, self.group], layout=self.plan.layout, optimized=False)

    def store(self, ref, t, *parts: jax.Array) -> None:
        """The same in memory."""
        ref[self.head, self.block, t, self.group] = jnp.concatenate(parts, 0).astype(ref.dtype)

    def mark(self, t) -> tuple[jax.Array, ...]:
        """The marks of a token, if there are any."""
        if self.marks is None:
            return ()
        if self.plan.sequences == 1:
            return (self.marks[self.block, t, 0],)
        return (mosaic.load(self.marks.at[self.block, t], LAYOUT.reduce(0), optimized=False),)

    def spread(self, mark: tuple[jax.Array, ...]) -> jax.Array | None:
        """The same for all channels."""
        return lax.broadcast_in_dim(mark[0], self.plan.tile, range(1, 1 + mark[0].ndim)) if mark else None

    def product(self, t, *parts: jax.Array) -> jax.Array:
        """Of this warpgroup's rows of the matrices and what all have for the token."""
        x, factor, terms = jnp.concatenate(parts, 0), self.factors.at[lax.rem(t, 2)], []
        for _ in range(self.plan.copies):
            terms.append(x.astype(jnp.bfloat16))
            x = x - terms[-1].astype(jnp.float32)
        own = x.shape[0]
        if x.ndim == 1:
            terms = [lax.broadcast_in_dim(term, (own, COLUMNS), [0]) for term in terms]
        factor[pl.ds(self.group * own, own)] = jnp.concatenate(terms, 1)
        plgpu.commit_smem()
        if self.plan.groups > 1:
            plgpu.barrier_arrive(self.met)
            plgpu.barrier_wait(self.met)
        rows = self.weights.shape[0] // self.plan.terms

        def multiply(total):
            for s in reversed(range(self.plan.terms)):
                plgpu.wgmma(total, self.weights.at[pl.ds(s * rows, rows)], factor)
            return total[...]

        total = pl.run_scoped(multiply, plgpu.WGMMAAccumulatorRef((rows, self.plan.columns), jnp.float32))
        found = [total[:, n : n + COLUMNS] for n in reversed(range(0, self.plan.columns, COLUMNS))]
        found = functools.reduce(jnp.add, found)
        return jnp.max(found, 1) if x.ndim == 1 else found


def _parts(x: jax.Array) -> list[jax.Array]:
    return [x[n : n + TILE].astype(jnp.float32) for n in range(0, x.shape[0], TILE)]


def _cell(pre: list[jax.Array], q: jax.Array, n: jax.Array, m: jax.Array) -> tuple[tuple, tuple]:
    """The state after a token, from its pre-activations and the state before, and what is kept."""
    i, f, z, o = pre
    small = jnp.exp(-jnp.abs(f))
    kept = jnp.minimum(f, 0.0) - jnp.log(1.0 + small) + m
    empty = n == 0.0
    unit = jnp.where(empty, i, jnp.maximum(kept, i))
    remains, write = jnp.where(empty, 0.0, jnp.exp(kept - unit)) * n, jnp.exp(i - unit)
    after = remains + write
    alpha, omega, z, o = remains / after, write / after, jnp.tanh(z), 1.0 / (1.0 + jnp.exp(-o))
    before = jnp.where(empty, 0.0, q)
    mixed = before + omega * (z - before)
    fading = jnp.where(f > 0.0, small, 1.0) / (1.0 + small)
    return (mixed, after, o * mixed, unit), (o, before, alpha, omega, fading, z)


def forward_kernel(keep: bool, plan: Plan, gates, R, *refs) -> None:
    """All tokens of a head of some sequences."""
    marks, refs = (refs[0], refs[1:]) if plan.masked else (None, refs)
    first, y, last, *refs = refs
    kept, refs = (refs[0], refs[1:]) if keep else (None, refs)
    here, T = _Block(plan, R, marks, *refs), gates.shape[2]

    def step(t, carry):
        (q, n, h, m), x, mark = carry
        soon = jnp.minimum(t + 1, T - 1)
        ahead = here.load(gates, soon), here.mark(soon)
        mark = here.spread(mark)
        if mark is not None:
            n, h = (jnp.where(mark > 0.0, 0.0, part) for part in (n, h))
        u = here.product(t, h)
        state, found = _cell(_parts(x.astype(jnp.float32) + u), q, n, m)
        if mark is not None:
            state = tuple(jnp.where(mark < 0.0, a, b) for a, b in zip((q, n, h, m), state, strict=True))
        here.store(y, t, state[2])
        if kept is not None:
            here.store(kept, t, *found)
        return state, *ahead

    state, _, _ = lax.fori_loop(0, T, step, (tuple(_parts(here.load(first, 0))), here.load(gates, 0), here.mark(0)))
    here.store(last, 0, *state)


def backward_kernel(plan: Plan, kept, R, *refs) -> None:
    """The last token first; the state's cotangents are those of q, ``log n + m`` and h."""
    marks, refs = (refs[0], refs[1:]) if plan.masked else (None, refs)
    dy, dlast, dx, dfirst, *refs = refs
    here, T = _Block(plan, R, marks, *refs), kept.shape[2]
    load = lambda t: (here.load(kept, t), here.load(dy, t), here.mark(t))  # noqa: E731

    def step(s, carry):
        (dq, dlog, dh), found, dy, mark = carry
        t = T - 1 - s
        ahead = load(jnp.maximum(t - 1, 0))
        mark, (o, q, alpha, omega, fading, z) = here.spread(mark), _parts(found)
        of_h = dh + dy.astype(jnp.float32)
        dmixed = dq + of_h * o
        moved = dmixed * alpha * omega * (z - q)
        back = alpha * dlog - moved
        mixed = q + omega * (z - q)
        dpre = [moved + omega * dlog, back * fading, dmixed * omega * (1.0 - z * z), of_h * mixed * o * (1.0 - o)]
        if mark is not None:
            dpre = [jnp.where(mark < 0.0, 0.0, part) for part in dpre]
        here.store(dx, t, *dpre)
        found = alpha * dmixed, back, here.product(t, *dpre)
        if mark is not None:
            found = *found[:2], jnp.where(mark > 0.0, 0.0, found[2])
            found = tuple(jnp.where(mark < 0.0, a, b) for a, b in zip((dq, dlog, dh), found, strict=True))
        return found, *ahead

    found, *_ = lax.fori_loop(0, T, step, (tuple(_parts(here.load(dlast, 0))[:3]), *load(T - 1)))
    here.store(dfirst, 0, *found)
