"""TPU kernels of gla with one gate per token and head: a chunk of several heads a grid step.

Gates are ``[B, blocks, heads of a block, T]``. With D the decays inside a chunk, from exact sums of gates:

    y = (q k^T * D) v + enter (q S)        S' = through S + (leave k)^T v

All of it transposed, states ``[V, K]`` too: then what belongs to a token that reads is a row, and only the gates of
those that are read have to be brought into columns. What a head does with its decays is ``mlstm``'s too.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ..tpu.mosaic import dot, running_sums
from .tpu_blocks import Plan, read_segments
from .tpu_decays import Decays, last_of, score_products
from .tpu_scalar_vjp import backward


def weights(plan: Plan, decay: Decays, q, k) -> list[list[jax.Array]]:
    """Of each head and tile of tokens, which are rows, what those from there on read of them.

    For all heads before anything else: while those of one head are made, the products of others fill the matrix unit.
    """
    found = []
    for n, group in enumerate(plan.groups()):
        products = score_products(plan, q, k, n)
        for h in group:
            since, tiles = decay.columns(h), zip(plan.tiles(), products, strict=True)
            found.append([product * decay.within(h, j, since) for j, product in tiles])
    return found


def whole(tiles: list[jax.Array]) -> jax.Array:
    """Tiles of rows that end in the last column, below each other, with zeros before them."""
    return jnp.concatenate([last_of(tiles[0].shape[1], x) for x in tiles], 0)


def forward_kernel(plan: Plan, keep: bool, packed: bool, *refs) -> None:
    """One chunk of a block of heads."""
    q, k, v, g, first, *refs = refs
    ids, (y, last, *kept) = (refs[:2], refs[2:]) if packed else ((), refs)
    low = q.dtype

    @pl.when(pl.program_id(2) == 0)
    def _():
        last[...] = first[...]

    sums = running_sums(g[0, 0])
    decay = Decays(sums, sums, None, read_segments(ids), plan.scale)
    scores = [whole([x.astype(low) for x in tiles]) for tiles in weights(plan, decay, q, k)]
    for n, group in enumerate(plan.groups()):
        for h in group:
            one, state, values = slice(h, h + 1), last[0, h], v[0, h]
            if keep:
                kept[0][0, h, 0] = state.astype(low)
            out = dot(values, scores[h]) + dot(state.astype(low), q[0, n]) * decay.enter[one]
            y[0, h] = out.astype(y.dtype)
            new = (values.astype(jnp.float32) * decay.leave[one]).astype(low)
            last[0, h] = decay.through[one] * state + dot(new, k[0, n], (1, 1))


def backward_kernel(plan: Plan, packed: bool, *refs) -> None:
    """One chunk of a block of heads, the last chunk first."""
    q, k, v, g, dy, kept, dlast, *refs = refs
    ids, (dq, dk, dv, dg, dstate) = (refs[:2], refs[2:]) if packed else ((), refs)

    @pl.when(pl.program_id(2) == 0)
    def _():
        dstate[...] = dlast[...]

    sums = running_sums(g[0, 0])
    decay = Decays(sums, sums, None, read_segments(ids), plan.scale)
    found = backward(plan, decay, (q, k, v, dy, kept), (dq, dk, dv, dstate), g.shape[2])
    dg[0, 0] = found.gates
