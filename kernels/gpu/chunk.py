"""GPU kernels of which a block has one chunk of one head: what it reads, and what it takes from the walk over states.

Their grid is ``batch``, ``head``, ``chunk`` and, where a block has 64 of the K channels, ``column``.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from .mosaic import TILE, block, finished, load, product, scan, transposed, zero_column, zeros


def axis(name: str) -> jax.Array:
    """This block's place in the grid."""
    return lax.axis_index(name)


def of_tokens(ref, H: int):
    """The tokens of this block's head ``[T, width]``, of which ``ref`` may have a group's."""
    return ref.at[axis("batch"), :, axis("head") // (H // ref.shape[2])]


def of_chunk(step: Callable, tokens: list, sums: list, H: int, *, width: int, column) -> None:
    """``step`` once, with this block's chunk of arrays of tokens and, if there are any, of sums of gates."""
    n = axis("chunk")
    wide, gates = block((TILE, width), lambda _: (n, column)), block((None, 2, TILE), lambda _: (n, 0, 0), factor=False)
    cut = [*(of_tokens(ref, H) for ref in tokens), *(ref.at[axis("batch"), axis("head")] for ref in sums)]

    def once(_, *refs):
        step(*refs[:-1])
        return refs[-1]

    scan(once, 1, 1, [wide] * len(tokens) + [gates] * len(sums), cut, jnp.int32(0))


def weight_cotangents(u, dv, dy, *, erases: bool) -> list[jax.Array]:
    """Those of P and, if something erases, of what X is the inverse of: ``[64, 64]``, not masked."""
    n = axis("chunk")
    tile = block((TILE, TILE), lambda m: (n, m))

    def step(_, u, dv, dy, found):
        found = [found[0] + product(dy, transposed(u)), *(dA - product(dv, transposed(u)) for dA in found[1:])]
        finished()
        return found

    refs = [of_tokens(ref, ref.shape[2]) for ref in (u, dv, dy)]
    return scan(step, u.shape[3] // TILE, 1, [tile] * 3, refs, [zeros()] * (1 + erases))


def factor_cotangents(u, dv, dy, states, dstates, *, erases: bool) -> tuple[list[jax.Array], jax.Array]:
    """Those of the decayed q and k and, if something erases, a, of 64 channels; and of what the state is multiplied by.

    The states are those that enter and the cotangents of those that leave, ``[B, H, N, K, V]``. Nothing is fetched
    ahead: two blocks fit a multiprocessor, of which one computes while the other waits.
    """
    n, c = axis("chunk"), axis("column")
    tile, state = block((TILE, TILE), lambda m: (n, m)), block((TILE, TILE), lambda m: (c, m))

    def step(_, u, dv, dy, S, dS, carry):
        (dq, dk, *da), passing = carry
        dq += product(dy, transposed(S))
        dk += product(u, transposed(dS))
        da = [x - product(dv, transposed(S)) for x in da]
        passing += jnp.sum(load(S) * load(dS), 1)
        finished()
        return [dq, dk, *da], passing

    refs = [of_tokens(ref, ref.shape[2]) for ref in (u, dv, dy)]
    refs += [ref.at[axis("batch"), axis("head")].at[n] for ref in (states, dstates)]
    init = [zeros()] * (2 + erases), zero_column()
    return scan(step, u.shape[3] // TILE, 1, [tile] * 3 + [state] * 2, refs, init)
