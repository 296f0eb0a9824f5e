"""Lists of blocks on a TPU: the keys of a head wait in vector memory, and each list picks its blocks there.

Blocks that a list does not name cost nothing, and a key leaves HBM once, however many lists name it: with blocks of 64
queries and 64 keys, to fetch what each list names would take longer than all else. All are causal, so that the keys of
a step's own tokens come with it; they are kept in float32, whose rows may be read from anywhere. A query meets all that
its list names at once, and nothing is rescaled. Where the keys do not fit, they are cut in spans.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..tpu.mosaic import LANES, LOG2E, call, dot
from .softmax import EMPTY
from .tpu_tile import Plan, Tile, column, row


def go_through(plan: Plan, refs: dict, work, outputs: list[tuple]) -> None:
    """``work(tiles)`` for the lists of a step, some at a time; where they name nothing ``outputs`` are filled."""
    span, step, groups = pl.program_id(2), pl.program_id(3), plan.lists // plan.together

    def some(first) -> None:
        indices = [first + i for i in range(plan.together)]
        make = lambda used: work([Tile(plan, n, span, refs, used) for n in indices])  # noqa: E731
        if plan.spans == 1:
            make(plan.entries)
            return
        most = functools.reduce(jnp.maximum, [refs["lists"][n, 0, 2 * plan.entries] for n in indices])
        counts = plan.counts()
        for least, used in zip([0, *counts[:-1]], counts, strict=True):
            pl.when((most > least) & (most <= used))(functools.partial(make, used))

        @pl.when(most == 0)
        def _():
            for n in indices:
                for ref, fill in outputs:
                    ref[n] = jnp.full(ref.shape[1:], fill, ref.dtype)

    def every() -> None:
        if groups == 1:
            some(0)
        else:
            jax.lax.fori_loop(0, groups, lambda g, _: some(g * plan.together), None)

    if plan.spans == 1 and not plan.before:
        every()
        return
    active = (step >= plan.before) & (step >= span * plan.span)
    pl.when(active)(every)

    @pl.when(~active)
    def _():
        for ref, fill in outputs:
            ref[...] = jnp.full(ref.shape, fill, ref.dtype)


def arrived(plan: Plan, keys: list[tuple], cleared: list) -> None:
    """The keys of a step's own tokens join those that wait, and gradients of these tokens begin at 0.

    Some rows that follow may be read before their own keys are there, but weigh nothing; they must hold numbers.
    """
    at = pl.program_id(3) - pl.program_id(2) * plan.span
    begin = pl.multiple_of(at * plan.tokens, 8)
    own, next_ = pl.ds(begin, plan.tokens), pl.ds(pl.multiple_of(begin + plan.tokens, 8), plan.size)

    def put() -> None:
        for ref, new in keys:
            for c in range(ref.shape[0]):
                ref[c, own] = new[:, c * LANES : (c + 1) * LANES].astype(ref.dtype)
                ref[c, next_] = jnp.zeros((plan.size, LANES), ref.dtype)
        for ref in cleared:
            for c in range(ref.shape[0]):
                ref[c, own] = jnp.zeros((plan.tokens, LANES), ref.dtype)

    if plan.spans == 1:
        put()
    else:
        pl.when((at >= 0) & (at < plan.span))(put)


def forward_kernel(plan: Plan, lists, q, k, v, *rest):
    """y, and the logarithm of the denominator."""
    *limits, y, lse, kept_k, kept_v = rest
    arrived(plan, [(kept_k, k), (kept_v, v)], [])

    def work(tiles: list[Tile]) -> None:
        weights = []
        for tile, s in [(tile, tile.scores()) for tile in tiles]:
            most = jnp.maximum(jnp.max(s, 1, keepdims=True), EMPTY)
            p = jnp.exp2(s - most)
            total = jnp.sum(p, 1, keepdims=True)
            total = jnp.where(total > 0, total, 1)
            lse[tile.n] = row(most / LOG2E + jnp.log(total))
            weights.append((tile, p.astype(q.dtype), total))
        for tile, p, total in weights:
            y[tile.n] = (dot(p, tile.v) / total).astype(y.dtype)

    go_through(plan, {"lists": lists, "q": q, "k": kept_k, "v": kept_v, "limits": limits}, work, [(y, 0), (lse, EMPTY)])


def backward_kernel(plan: Plan, lists, q, k, v, dy, lse, delta, *rest):
    """The gradients of q, k and v; those of keys gather in vector memory."""
    *limits, dq, dk, dv, kept_k, kept_v = rest
    arrived(plan, [(kept_k, k), (kept_v, v)], [dk, dv])

    def work(tiles: list[Tile]) -> None:
        found = []
        for tile, s, dp in [(tile, tile.scores(), dot(dy[tile.n], tile.v, (1, 1))) for tile in tiles]:
            p = jnp.exp2(s - column(lse[tile.n]) * LOG2E)
            found.append((tile, p.astype(q.dtype), (p * (dp - column(delta[tile.n]))).astype(q.dtype)))
        for tile, p, ds in found:
            dq[tile.n] = dot(ds, tile.k).astype(dq.dtype)
            tile.add(dk, dot(ds, tile.q, (0, 0)))
            tile.add(dv, dot(p, dy[tile.n], (0, 0)))

    go_through(plan, {"lists": lists, "q": q, "k": kept_k, "v": kept_v, "limits": limits}, work, [(dq, 0)])


class Specs:
    """The blocks of a grid step: of sequence b, key head g, span s, step n."""

    def __init__(self, plan: Plan, lists, keys: int):
        m, q = plan.lists, lambda n: jnp.maximum(n - plan.before, 0)
        key = lambda s, n: jnp.clip(n, s * plan.span, jnp.minimum((s + 1) * plan.span, plan.steps) - 1)  # noqa: E731
        own, each = lists.shape[1] > 1, keys
        self.lists = pl.BlockSpec(
            (None, None, None, m, 1, lists.shape[-1]),
            lambda b, g, s, n: (b, g if own else 0, s, q(n), 0, 0),
            memory_space=pltpu.SMEM,
        )
        self.queries = lambda x: pl.BlockSpec((None, None, m, *x.shape[3:]), lambda b, g, s, n: (b, g, q(n), 0, 0))
        self.keys = lambda x: pl.BlockSpec(
            (None, None, plan.tokens, x.shape[3]), lambda b, g, s, n: (b, g // each, key(s, n), 0)
        )
        self.limits = pl.BlockSpec((None, m, 1, plan.queries), lambda b, g, s, n: (b, q(n), 0, 0))
        self.parts = lambda x: pl.BlockSpec(
            (None, None, None, m, *x.shape[3:]), lambda b, g, s, n: (s, b, g, q(n), 0, 0)
        )
        self.spans = lambda columns: pl.BlockSpec(
            (None, None, None, columns, plan.rows, LANES), lambda b, g, s, n: (b, g, s, 0, 0, 0)
        )
        self.kept = lambda x: pltpu.VMEM((x.shape[3] // LANES, plan.kept, LANES), jnp.float32)


def forward(plan: Plan, lists, q, k, v, limits):
    """For each span y and the logarithm of the denominator.

    Args:
      plan: how all is cut.
      lists: ``[B, 1 or G, spans, N, 1, 2 n + 1]``: starts of blocks, counted in the span; ends; how many are used.
      q: ``[B, G, N, queries R, K]``.
      k: ``[B, Hk, S, K]``, S being all steps' tokens; the width of it and of v is a multiple of ``LANES``.
      v: the same.
      limits: the last key that each query sees and, if there are documents, the first: ``[B, N, 1, queries]``.
    """
    specs = Specs(plan, lists, q.shape[1] // k.shape[1])
    y = jax.ShapeDtypeStruct((*q.shape[:4], v.shape[3]), v.dtype)
    lse = jax.ShapeDtypeStruct((*q.shape[:3], 1, q.shape[3]), jnp.float32)
    return call(
        functools.partial(forward_kernel, plan),
        grid=(*q.shape[:2], plan.spans, plan.steps),
        sequential=2,
        in_specs=[specs.lists, specs.queries(q), specs.keys(k), specs.keys(v), *[specs.limits] * len(limits)],
        out_specs=[specs.parts(y), specs.parts(lse)],
        out_shape=[jax.ShapeDtypeStruct((plan.spans, *x.shape), x.dtype) for x in (y, lse)],
        scratch_shapes=[specs.kept(k), specs.kept(v)],
        name="lists_forward",
    )(lists, q, k, v, *limits)


def backward(plan: Plan, lists, q, k, v, limits, dy, lse, delta):
    """The gradients of q, for each span if there are several; and those of k and v.

    Those are ``[B, G, spans, width / LANES, rows, LANES]``; that of q, where there is one span, is written over q.
    """
    specs, one = Specs(plan, lists, q.shape[1] // k.shape[1]), plan.spans == 1
    columns = [x.shape[3] // LANES for x in (k, v)]
    return call(
        functools.partial(backward_kernel, plan),
        grid=(*q.shape[:2], plan.spans, plan.steps),
        sequential=2,
        in_specs=[
            specs.lists, specs.queries(q), specs.keys(k), specs.keys(v),
            specs.queries(dy), specs.queries(lse), specs.queries(delta), *[specs.limits] * len(limits),
        ],
        out_specs=[specs.queries(q) if one else specs.parts(q), *map(specs.spans, columns)],
        out_shape=[
            jax.ShapeDtypeStruct(q.shape if one else (plan.spans, *q.shape), q.dtype),
            *(jax.ShapeDtypeStruct((*q.shape[:2], plan.spans, n, plan.rows, LANES), jnp.float32) for n in columns),
        ],
        scratch_shapes=[specs.kept(k), specs.kept(v)],
        input_output_aliases={1: 0} if one else {},
        name="lists_backward",
    )(lists, q, k, v, dy, lse, delta, *limits)  # fmt: skip
