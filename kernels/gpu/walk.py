"""GPU kernels of the recurrences with a matrix for a state: a block walks over the chunks of a head, the state on chip.

    u = X (v - enter (a S))      y = P u + enter (q S)      S' = through S + (leave k)^T u

Without ``a`` nothing is erased: u is v. All that does not depend on a state is made before, for all chunks at once: the
weights P, with the scale in them, and the inverse X, ``[B, H, N, 64, 64]``; of what the state gives to u, y and to what
follows, all V columns are independent, so that a block has 64 of them and all of K.

The decays are ``sums``, by ``gpu.decay.sums``, and are then applied here to rows of tiles in registers; or they differ
by channel and are in q, a and k already, and ``through`` is ``[B, H, N, K]``.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from .decay import enter_decays, leave_decays, through_decay
from .mosaic import (
    TILE,
    block,
    by_row,
    call,
    column,
    load,
    part,
    product,
    put,
    scan,
    send,
    sent,
    shared,
    transposed,
)  # fmt: skip

Arrays = dict[str, jax.Array]
"""q, k, v, P, sums or through, and of what erases a and X. Those of tokens are ``[B, T, heads, K or V]``."""


def _buffers(K: int) -> int:
    """How many chunks are in shared memory: with 256 channels there is room for one only."""
    return 2 if K <= 128 else 1


def _fetched(x: dict, K: int, at) -> tuple[list, list]:
    """The blocks of a step, whose chunk is ``at(step)``, and the arrays of this block's head that they are cut from."""
    b, h, c = (lax.axis_index(name) for name in ("batch", "head", "column"))
    wide, tile = block((TILE, K), lambda n: (at(n), 0)), block((TILE, TILE), lambda n: (at(n), c))
    blocks = {
        "q": wide, "k": wide, "a": wide, "v": tile, "dy": tile,
        "P": block((None, TILE, TILE), lambda n: (at(n), 0, 0)),
        "X": block((None, TILE, TILE), lambda n: (at(n), 0, 0)),
        "sums": block((None, 2, TILE), lambda n: (at(n), 0, 0), factor=False),
        "through": block((None, K), lambda n: (at(n), 0), factor=False),
    }  # fmt: skip
    H = x["P"].shape[1]
    of_tokens = lambda ref: ref.at[b, :, h // (H // ref.shape[2])]  # noqa: E731
    cut = {name: of_tokens(ref) if name in ("q", "k", "a", "v", "dy") else ref.at[b, h] for name, ref in x.items()}
    return [blocks[name] for name in x], [cut[name] for name in x]


def _through(x: dict, tiles) -> list:
    """What is left of each tile of the entering state in the leaving one."""
    if "sums" in x:
        return [through_decay(x["sums"])] * len(tiles)
    return [by_row(column(x["through"].at[part(m)])) for m in tiles]


def _forward_kernel(scale: float, keep: int, names: tuple[str, ...], *refs) -> None:
    x, (first, y, last, *rest) = dict(zip(names, refs, strict=False)), refs[len(names) :]
    kept, (state, low, out, *solved) = rest[:keep], rest[keep:]
    b, h, c = (lax.axis_index(name) for name in ("batch", "head", "column"))
    N, K = x["P"].shape[2], x["q"].shape[3]
    tiles = range(K // TILE)

    def step(n, *refs):
        x, S = dict(zip(names, refs, strict=False)), refs[-1]
        sent()
        for m in tiles:
            put(state.at[part(m)], S[m])
        u = x["v"]
        if solved:
            held = product(x["a"], state)
            if "sums" in x:
                held *= by_row(enter_decays(x["sums"]))
            put(low, load(u) - held)
            (u,) = solved
            put(u, product(x["X"], low))
        read = product(x["q"], state)
        if "sums" in x:
            read *= by_row(enter_decays(x["sums"]) * scale)
        put(out, read + product(x["P"], u))
        if "sums" in x:
            put(low, load(u) * by_row(leave_decays(x["sums"])))
        # All that was fetched is read before the send: after it the next chunk may take its place.
        written, through = low if "sums" in x else u, _through(x, tiles)
        S = [through[m] * S[m] + product(transposed(x["k"].at[:, part(m)]), written) for m in tiles]
        of_values = b, part(n), h, part(c)
        copies = [(out, y.at[of_values])]
        if keep:
            copies.append((state, kept[0].at[b, h, n, :, part(c)]))
            copies += [(ref, kept[1].at[of_values]) for ref in solved]
        send(*copies)
        return tuple(S)

    S = scan(
        step, N, _buffers(K), *_fetched(x, K, lambda n: n),
        tuple(load(first.at[b, h, part(m), part(c)], optimized=False) for m in tiles),
    )  # fmt: skip
    for m in tiles:
        last[b, h, part(m), part(c)] = S[m]
    sent(everywhere=True)


def forward(scale: float, keep: bool, x: Arrays, first: jax.Array) -> list[jax.Array]:
    """``y``, the last state and, if they are to be kept, the states that enter the chunks and u, if it is not v.

    To make the states again would take this whole walk once more, which nothing else can fill the card during; they
    are K V / 64 numbers a token, where q, k, v and y are 2 (K + V).
    """
    (B, _, H, V), K, N, dtype = x["v"].shape, x["q"].shape[3], x["P"].shape[2], x["v"].dtype
    outputs = [(x["v"].shape, dtype), (first.shape, jnp.float32)]
    kept = [((B, H, N, K, V), dtype), *[(x["v"].shape, dtype)] * ("a" in x)] if keep else []
    return call(
        functools.partial(_forward_kernel, scale, len(kept), tuple(x)), "states_forward",
        grid={"batch": B, "head": H, "column": V // TILE}, outputs=outputs + kept,
        scratch=[shared(K, TILE), *[shared(TILE, TILE)] * (3 if "a" in x else 2)],
    )(*x.values(), first)  # fmt: skip


def _backward_kernel(scale: float, names: tuple[str, ...], *refs) -> None:
    """The last chunk first."""
    x, (dlast, dv, dstates, dfirst, dstate, low, out) = dict(zip(names, refs, strict=False)), refs[len(names) :]
    b, h, c = (lax.axis_index(name) for name in ("batch", "head", "column"))
    N, K = x["P"].shape[2], x["q"].shape[3]
    tiles = range(K // TILE)

    def step(done, *refs):
        x, dS, n = dict(zip(names, refs, strict=False)), refs[-1], N - 1 - done
        sent()
        for m in tiles:
            put(dstate.at[part(m)], dS[m])
        of_state = product(x["k"], dstate)
        if "sums" in x:
            of_state *= by_row(leave_decays(x["sums"]))
        du = product(transposed(x["P"]), x["dy"]) + of_state
        if "a" in x:
            put(low, du)
            du = product(transposed(x["X"]), low)
        put(out, du)
        through = _through(x, tiles)
        dS = [through[m] * dS[m] for m in tiles]
        dread, dheld = x["dy"], out
        if "sums" in x:
            dread = dheld = low
            put(low, load(x["dy"]) * by_row(enter_decays(x["sums"]) * scale))
        dS = [dS[m] + product(transposed(x["q"].at[:, part(m)]), dread) for m in tiles]
        if "a" in x:
            if "sums" in x:
                put(low, load(out) * by_row(enter_decays(x["sums"])))
            dS = [dS[m] - product(transposed(x["a"].at[:, part(m)]), dheld) for m in tiles]
        send((out, dv.at[b, part(n), h, part(c)]), (dstate, dstates.at[b, h, n, :, part(c)]))
        return tuple(dS)

    dS = scan(
        step, N, _buffers(K), *_fetched(x, K, lambda n: N - 1 - n),
        tuple(load(dlast.at[b, h, part(m), part(c)], optimized=False) for m in tiles),
    )  # fmt: skip
    for m in tiles:
        dfirst[b, h, part(m), part(c)] = dS[m]
    sent(everywhere=True)


def backward(scale: float, x: Arrays, dy: jax.Array, dlast: jax.Array) -> list[jax.Array]:
    """The cotangents of v, of the states that leave the chunks, and of the first state."""
    (B, _, H, V), K, N = dy.shape, x["q"].shape[3], x["P"].shape[2]
    x = {name: array for name, array in x.items() if name != "v"} | {"dy": dy}
    outputs = [(dy.shape, dy.dtype), ((B, H, N, K, V), dy.dtype), (dlast.shape, jnp.float32)]
    return call(
        functools.partial(_backward_kernel, scale, tuple(x)), "states_backward",
        grid={"batch": B, "head": H, "column": V // TILE}, outputs=outputs,
        scratch=[shared(K, TILE), shared(TILE, TILE), shared(TILE, TILE)],
    )(*x.values(), dlast)  # fmt: skip
