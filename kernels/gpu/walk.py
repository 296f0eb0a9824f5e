"""GPU kernels of the recurrences with a matrix for a state: a block walks over the chunks of a head, the state on chip.

    u = X (v - enter (a S))      y = P u + enter (q S)      S' = through S + (leave k)^T u

Without ``a`` nothing is erased: u is v. All that does not depend on a state is made before, for all chunks at once: the
weights P, with the scale in them, and the inverse X, ``[B, H, N, 64, 64]``; of what the state gives to u, y and to what
follows, all V columns are independent, so that a block has 64 of them and all of K.

The decays are ``sums``, by ``gpu.decay.sums``, and are then applied here to rows of tiles in registers; or they differ
by channel and are in q, a and k already, and ``through`` is ``[B, H, N, K]``. Beside ``sums`` there may be ``weight``,
``[B, H, N, 64]``, which multiplies what a token writes.

Where only a state is asked for, of some of the rows of the batch, what is not needed for it is neither there nor made.
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
from .spans import Rows

Arrays = dict[str, jax.Array]
"""q, k, v, P, sums or through, and of what erases a and X. Those of tokens are ``[B, T, heads, K or V]``."""


def _buffers(K: int) -> int:
    """How many chunks are in shared memory: with 256 channels there is room for one only."""
    return 2 if K <= 128 else 1


def _fetched(x: dict, H: int, K: int, row, at) -> tuple[list, list]:
    """The blocks of a step, whose chunk is ``at(step)``, and the arrays of this block's head that they are cut from."""
    h, c = (lax.axis_index(name) for name in ("head", "column"))
    wide, tile = block((TILE, K), lambda n: (at(n), 0)), block((TILE, TILE), lambda n: (at(n), c))
    blocks = {
        "q": wide, "k": wide, "a": wide, "v": tile, "dy": tile,
        "P": block((None, TILE, TILE), lambda n: (at(n), 0, 0)),
        "X": block((None, TILE, TILE), lambda n: (at(n), 0, 0)),
        "sums": block((None, 2, TILE), lambda n: (at(n), 0, 0), factor=False),
        "through": block((None, K), lambda n: (at(n), 0), factor=False),
        "weight": block((None, TILE), lambda n: (at(n), 0), factor=False),
    }  # fmt: skip
    of_tokens = lambda ref: ref.at[row, :, h // (H // ref.shape[2])]  # noqa: E731
    cut = {name: of_tokens(ref) if name in ("q", "k", "a", "v", "dy") else ref.at[row, h] for name, ref in x.items()}
    return [blocks[name] for name in x], [cut[name] for name in x]


def _through(x: dict, tiles) -> list:
    """What is left of each tile of the entering state in the leaving one."""
    if "sums" in x:
        return [through_decay(x["sums"])] * len(tiles)
    return [by_row(column(x["through"].at[part(m)])) for m in tiles]


def _chunks(x: dict) -> int:
    return x["sums" if "sums" in x else "through"].shape[2]


def _forward_kernel(scale: float, keep: int, rows: Rows | None, names: tuple[str, ...], *refs) -> None:
    x, (first, *outputs) = dict(zip(names, refs, strict=False)), refs[len(names) :]
    reads, erases = "q" in x, "a" in x
    ys, (last, *rest) = outputs[:reads], outputs[reads:]
    kept, (state, low, out, *solved) = rest[:keep], rest[keep:]
    b, h, c = (lax.axis_index(name) for name in ("batch", "head", "column"))
    row, N, (H, K) = rows(b) if rows else b, _chunks(x), first.shape[1:3]
    tiles = range(K // TILE)

    def step(n, *refs):
        x, S = dict(zip(names, refs, strict=False)), refs[-1]
        sent()
        if reads or erases:
            for m in tiles:
                put(state.at[part(m)], S[m])
        u = x.get("v")
        if erases:
            held = product(x["a"], state)
            if "sums" in x:
                held *= by_row(enter_decays(x["sums"]))
            put(low, -held if u is None else load(u) - held)
            (u,) = solved
            put(u, product(x["X"], low))
        if reads:
            read = product(x["q"], state)
            if "sums" in x:
                read *= by_row(enter_decays(x["sums"]) * scale)
            put(out, read + product(x["P"], u))
        written = u
        if "sums" in x:
            leave = leave_decays(x["sums"])
            if "weight" in x:
                leave *= column(x["weight"])
            written = low
            put(written, load(u) * by_row(leave))
        # All that was fetched is read before the send: after it the next chunk may take its place.
        through = _through(x, tiles)
        S = [through[m] * S[m] + product(transposed(x["k"].at[:, part(m)]), written) for m in tiles]
        of_values = row, part(n), h, part(c)
        copies = [(out, y.at[of_values]) for y in ys]
        if keep:
            copies.append((state, kept[0].at[b, h, n, :, part(c)]))
            copies += [(ref, kept[1].at[of_values]) for ref in solved]
        send(*copies)
        return tuple(S)

    S = scan(
        step, N, _buffers(K), *_fetched(x, H, K, row, lambda n: n),
        tuple(load(first.at[b, h, part(m), part(c)], optimized=False) for m in tiles),
    )  # fmt: skip
    for m in tiles:
        last[b, h, part(m), part(c)] = S[m]
    sent(everywhere=True)


def _forward(scale: float, keep: int, rows: Rows | None, x: Arrays, first: jax.Array, outputs: list) -> list[jax.Array]:
    B, H, K, V = first.shape
    name = "states_forward" if "q" in x else "spans_forward"
    return call(
        functools.partial(_forward_kernel, scale, keep, rows, tuple(x)), name,
        grid={"batch": B, "head": H, "column": V // TILE}, outputs=outputs,
        scratch=[shared(K, TILE), *[shared(TILE, TILE)] * (3 if "a" in x else 2)],
    )(*x.values(), first)  # fmt: skip


def forward(scale: float, keep: bool, x: Arrays, first: jax.Array) -> list[jax.Array]:
    """``y``, the last state and, if they are to be kept, the states that enter the chunks and u, if it is not v.

    To make the states again would take this whole walk once more, which nothing else can fill the card during; they
    are K V / 64 numbers a token, where q, k, v and y are 2 (K + V).
    """
    (B, H, K, V), N, (shape, dtype) = first.shape, _chunks(x), (x["v"].shape, x["v"].dtype)
    kept = [((B, H, N, K, V), dtype), *[(shape, dtype)] * ("a" in x)] if keep else []
    return _forward(scale, len(kept), None, x, first, [(shape, dtype), (first.shape, jnp.float32), *kept])


def last_state(x: Arrays, first: jax.Array, rows: Rows | None) -> jax.Array:
    """The last state alone, from the ``first`` of each of the rows; without v, if nothing but what is erased is."""
    x = {name: array for name, array in x.items() if name not in ("q", "P")}
    return _forward(1.0, 0, rows, x, first, [(first.shape, jnp.float32)])[0]


def _backward_kernel(scale: float, rows: Rows | None, names: tuple[str, ...], *refs) -> None:
    """The last chunk first."""
    x, (dlast, *outputs) = dict(zip(names, refs, strict=False)), refs[len(names) :]
    *whole, dfirst, dstate, low, out = outputs
    b, h, c = (lax.axis_index(name) for name in ("batch", "head", "column"))
    row, N, (H, K) = rows(b) if rows else b, _chunks(x), dlast.shape[1:3]
    tiles = range(K // TILE)

    def step(done, *refs):
        x, dS, n = dict(zip(names, refs, strict=False)), refs[-1], N - 1 - done
        sent()
        if "k" in x:
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
        copies = []
        if whole:
            dv, dstates = whole
            copies = [(out, dv.at[b, part(n), h, part(c)]), (dstate, dstates.at[b, h, n, :, part(c)])]
        send(*copies)
        return tuple(dS)

    dS = scan(
        step, N, _buffers(K), *_fetched(x, H, K, row, lambda n: N - 1 - n),
        tuple(load(dlast.at[b, h, part(m), part(c)], optimized=False) for m in tiles),
    )  # fmt: skip
    for m in tiles:
        dfirst[b, h, part(m), part(c)] = dS[m]
    sent(everywhere=True)


def _backward(scale: float, rows: Rows | None, x: Arrays, dlast: jax.Array, outputs: list) -> list[jax.Array]:
    B, H, K, V = dlast.shape
    return call(
        functools.partial(_backward_kernel, scale, rows, tuple(x)), "spans_backward" if rows else "states_backward",
        grid={"batch": B, "head": H, "column": V // TILE}, outputs=[*outputs, (dlast.shape, jnp.float32)],
        scratch=[shared(K, TILE), shared(TILE, TILE), shared(TILE, TILE)],
    )(*x.values(), dlast)  # fmt: skip


def backward(scale: float, x: Arrays, dy: jax.Array, dlast: jax.Array) -> list[jax.Array]:
    """The cotangents of v, of the states that leave the chunks, and of the first state."""
    (B, H, K, V), N = dlast.shape, _chunks(x)
    x = {name: array for name, array in x.items() if name != "v"} | {"dy": dy}
    return _backward(scale, None, x, dlast, [(dy.shape, dy.dtype), ((B, H, N, K, V), dy.dtype)])


def first_cotangent(scale: float, x: Arrays, dy: jax.Array, dlast: jax.Array, rows: Rows) -> jax.Array:
    """The cotangent of the first state alone, from the ``dlast`` of each of the rows."""
    needed = {"q", "sums", "through"} if "a" not in x else {*x} - {"v"}
    x = {name: array for name, array in x.items() if name in needed} | {"dy": dy}
    return _backward(scale, rows, x, dlast, [])[0]
