"""GPU kernels of gla with one gate per token and head: a block walks over the chunks of a head with its state on chip.

The arrays are as the op has them, ``[B, T, heads, width]``; sums of gates are ``[B, H, N, 2, 64]``, by
``gpu.decay.sums``. With D the decays inside a chunk:

    y = (q k^T * D) v + enter (q S)        S' = through S + k^T (leave v)

Forward a block has all of K and 64 columns of V, so that no result is summed over blocks. Backward it has all of V and
64 columns of K: of the results only dv is a sum over blocks, which is left to the caller.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from ..gpu.decay import enter_decays, gate_gradients, leave_decays, through_decay, within_decays
from ..gpu.mosaic import (
    TILE,
    block,
    by_row,
    call,
    indices,
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


def _forward_kernel(scale: float, keep: bool, q, k, v, sums, first, *refs) -> None:
    y, last, *kept, low, state, out = refs
    b, h, c = (lax.axis_index(name) for name in ("batch", "head", "column"))
    N, K = sums.shape[2], q.shape[3]
    tiles, n_key = range(K // TILE), h // (v.shape[2] // k.shape[2])

    def step(n, q, k, v, sums, S):
        sent()
        for m in tiles:
            state[part(m)] = S[m].astype(state.dtype)
        decay = within_decays(sums, rows_later=True, log_scale=math.log2(scale))
        put(low, product(q, transposed(k)) * decay)
        read = product(low, v) + by_row(enter_decays(sums) * scale) * product(q, state)
        put(low, load(v) * by_row(leave_decays(sums)))
        written = [product(transposed(k.at[:, part(m)]), low) for m in tiles]
        through = through_decay(sums)  # before the send: after it, the fetch of a later chunk may overwrite the sums
        out[...] = read.astype(out.dtype)
        send((out, y.at[b, part(n), h, part(c)]), *((state, ref.at[b, h, n, :, part(c)]) for ref in kept))
        return tuple(through * S[m] + written[m] for m in tiles)

    whole = block((TILE, K), lambda n: (n, 0))
    gates = block((None, 2, TILE), lambda n: (n, 0, 0), factor=False)
    S = scan(
        step, N, 2, [whole, whole, block((TILE, TILE), lambda n: (n, c)), gates],
        [q.at[b, :, n_key], k.at[b, :, n_key], v.at[b, :, h], sums.at[b, h]],
        tuple(load(first.at[b, h, part(m), part(c)], optimized=False) for m in tiles),
    )  # fmt: skip
    for m in tiles:
        last[b, h, part(m), part(c)] = S[m]
    sent(everywhere=True)


def forward(scale: float, keep: bool, q, k, v, sums, first) -> list[jax.Array]:
    """``y``, the last state and, if they are to be kept, the states that enter the chunks."""
    (B, _, H, V), K, N = v.shape, q.shape[3], sums.shape[2]
    outputs = [(v.shape, v.dtype), (first.shape, jnp.float32), *[((B, H, N, K, V), v.dtype)] * keep]
    return call(
        functools.partial(_forward_kernel, scale, keep), "gla_scalar_forward",
        grid={"batch": B, "head": H, "column": V // TILE}, outputs=outputs,
        scratch=[shared(TILE, TILE), shared(K, TILE), shared(TILE, TILE)],
    )(q, k, v, sums, first)  # fmt: skip


def _backward_kernel(scale: float, q, k, v, dy, kept, sums, dlast, *refs) -> None:
    """The last chunk first. Products inside the chunk are transposed: rows are the earlier tokens."""
    dq, dk, dv, pieces, dfirst, low, dstate, dq_out, dk_out, dv_out, piece = refs
    b, h, c = (lax.axis_index(name) for name in ("batch", "head", "column"))
    N, V = sums.shape[2], v.shape[3]
    tiles, n_key = range(V // TILE), h // (v.shape[2] // k.shape[2])

    def step(done, q, k, v, dy, state, sums, dS):
        n = N - 1 - done
        sent()
        for m in tiles:
            dstate[:, part(m)] = dS[m].astype(dstate.dtype)
        decay = within_decays(sums, rows_later=False, log_scale=math.log2(scale))
        enter, leave, through = enter_decays(sums) * scale, leave_decays(sums), through_decay(sums)
        scores = product(k, transposed(q))
        put(low, scores * decay)
        for m in tiles:
            write = by_row(leave) * product(k, dstate.at[:, part(m)])
            dv_out[:, part(m)] = (product(low, dy.at[:, part(m)]) + write).astype(dv_out.dtype)
        dscores = product(v, transposed(dy)) * decay
        r, i = indices()
        both = jnp.where(r == i, 0.0, scores * dscores)  # a token's own product does not depend on gates
        put(low, dscores)
        write = by_row(leave) * product(v, transposed(dstate))
        dk_out[...] = (product(low, q) + write).astype(dk_out.dtype)
        read = by_row(enter) * product(dy, transposed(state))
        dq_out[...] = (product(transposed(low), k) + read).astype(dq_out.dtype)
        piece[0] = jnp.sum(both, 0)
        piece[1] = jnp.sum(load(q) * read - both, 1)
        piece[2] = jnp.sum(load(k) * write, 1)
        piece[3] = through * sum(jnp.sum(load(state.at[:, part(m)]) * dS[m], 1) for m in tiles)
        put(low, load(q) * by_row(enter))
        dS = tuple(through * dS[m] + product(transposed(low), dy.at[:, part(m)]) for m in tiles)
        send(
            (dq_out, dq.at[b, part(n), h, part(c)]), (dk_out, dk.at[b, part(n), h, part(c)]),
            (dv_out, dv.at[c, b, part(n), h]), (piece, pieces.at[b, h, c, n]),
        )  # fmt: skip
        return dS

    key = block((TILE, TILE), lambda n: (N - 1 - n, c))
    value = block((TILE, V), lambda n: (N - 1 - n, 0))
    gates = block((None, 2, TILE), lambda n: (N - 1 - n, 0, 0), factor=False)
    dS = scan(
        step, N, 2 if V <= 128 else 1,
        [key, key, value, value, block((None, TILE, V), lambda n: (N - 1 - n, c, 0)), gates],
        [q.at[b, :, n_key], k.at[b, :, n_key], v.at[b, :, h], dy.at[b, :, h], kept.at[b, h], sums.at[b, h]],
        tuple(load(dlast.at[b, h, part(c), part(m)], optimized=False) for m in tiles),
    )  # fmt: skip
    for m in tiles:
        dfirst[b, h, part(c), part(m)] = dS[m]
    sent(everywhere=True)


def backward(scale: float, q, k, v, dy, kept, sums, dlast) -> tuple[jax.Array, ...]:
    """The gradients of q and k for each value head, of v, of the natural-log gates and of the first state."""
    (B, T, H, V), K, N = v.shape, q.shape[3], sums.shape[2]
    dkey = ((B, T, H, K), q.dtype)
    outputs = [dkey, dkey, ((K // TILE, *v.shape), v.dtype), ((B, H, K // TILE, N, 4, TILE), jnp.float32)]
    dq, dk, dv, pieces, dfirst = call(
        functools.partial(_backward_kernel, scale), "gla_scalar_backward",
        grid={"batch": B, "head": H, "column": K // TILE}, outputs=[*outputs, (dlast.shape, jnp.float32)],
        scratch=[shared(TILE, TILE), shared(TILE, V), shared(TILE, TILE), shared(TILE, TILE), shared(TILE, V),
                 shared(4, TILE, dtype=jnp.float32)],
    )(q, k, v, dy, kept, sums, dlast)  # fmt: skip
    dg = gate_gradients(pieces.sum(2)).reshape(B, H, T).swapaxes(1, 2)
    return dq, dk, dv.astype(jnp.float32).sum(0), dg, dfirst
