"""GPU kernels of mLSTM: gla's with a gate a head, beside which a block has the normaliser in float32.

With D the decays inside a chunk, w the weights of what is written, ``exp(i - m)``, and least ``exp(-m)``:

    P = (q k^T * D) w      y = (P v + enter (q C)) / max(|norm|, least)      norm = P 1 + enter (q n)
    C' = through C + k^T (leave w v)                                         n' = through n + k^T (leave w)

There is no scale: it divides ``least``. The arrays are as gla's; ``lines`` are two numbers of each token,
``[B, H, N, 2, 64]``. Every block of V columns finds the same normaliser.
"""

import jax
import jax.numpy as jnp
from jax import lax

from ..gpu.decay import enter_decays, leave_decays, through_decay, within_decays
from ..gpu.mosaic import (
    LAYOUT,
    TILE,
    block,
    by_column,
    by_row,
    call,
    column,
    indices,
    load,
    part,
    product,
    put,
    row,
    scan,
    send,
    sent,
    shared,
    transposed,
)  # fmt: skip


def _columns(ref) -> jax.Array:
    """64 numbers of global memory, over the columns of a tile."""
    return load(ref, LAYOUT.reduce(0), optimized=False)


def _forward_kernel(q, k, v, sums, lines, first, first_n, *refs) -> None:
    """``lines``: w, least."""
    y, last, last_n, *kept, low, state, out = refs
    b, h, c = (lax.axis_index(name) for name in ("batch", "head", "column"))
    N, K = sums.shape[2], q.shape[3]
    tiles, n_key = range(K // TILE), h // (v.shape[2] // k.shape[2])

    def step(n, q, k, v, sums, lines, carry):
        C, normaliser = carry
        sent()
        for m in tiles:
            state[part(m)] = C[m].astype(state.dtype)
        enter, leave, through = enter_decays(sums), leave_decays(sums), through_decay(sums)
        leave *= column(lines.at[0])
        P = product(q, transposed(k)) * within_decays(sums, rows_later=True, log_scale=0.0)
        P *= by_column(row(lines.at[0]))
        put(low, P)
        norm = jnp.sum(P, 1)
        for m in tiles:
            norm += enter * jnp.sum(load(q.at[:, part(m)]) * by_column(normaliser[m]), 1)
        read = product(low, v) + by_row(enter) * product(q, state)
        out[...] = (read / by_row(jnp.maximum(jnp.abs(norm), column(lines.at[1])))).astype(out.dtype)
        put(low, load(v) * by_row(leave))
        written = [product(transposed(k.at[:, part(m)]), low) for m in tiles]
        counted = [jnp.sum(load(k.at[:, part(m)]) * by_row(leave), 0) for m in tiles]
        if kept:
            norms, states, normalisers = kept
            norms[b, h, c, n] = norm
            for m in tiles:
                normalisers[b, h, c, n, part(m)] = normaliser[m]
            send((out, y.at[b, part(n), h, part(c)]), (state, states.at[b, h, n, :, part(c)]))
        else:
            send((out, y.at[b, part(n), h, part(c)]))
        next_n = tuple(through * normaliser[m] + counted[m] for m in tiles)
        return tuple(through * C[m] + written[m] for m in tiles), next_n

    whole = block((TILE, K), lambda n: (n, 0))
    gates = block((None, 2, TILE), lambda n: (n, 0, 0), factor=False)
    C, normaliser = scan(
        step, N, 2, [whole, whole, block((TILE, TILE), lambda n: (n, c)), gates, gates],
        [q.at[b, :, n_key], k.at[b, :, n_key], v.at[b, :, h], sums.at[b, h], lines.at[b, h]],
        (tuple(load(first.at[b, h, part(m), part(c)], optimized=False) for m in tiles),
         tuple(_columns(first_n.at[b, h, part(m)]) for m in tiles)),
    )  # fmt: skip
    for m in tiles:
        last[b, h, part(m), part(c)] = C[m]
        last_n[b, h, c, part(m)] = normaliser[m]
    sent(everywhere=True)


def forward(keep: bool, q, k, v, sums, lines, first, first_n) -> list[jax.Array]:
    """``y``, the last C and n and, if they are to be kept, the norms, and the C and n that enter the chunks."""
    (B, _, H, V), K, N, f32 = v.shape, q.shape[3], sums.shape[2], jnp.float32
    blocks = V // TILE
    outputs = [(v.shape, v.dtype), (first.shape, f32), ((B, H, blocks, K), f32)]
    kept = [((B, H, blocks, N, TILE), f32), ((B, H, N, K, V), v.dtype), ((B, H, blocks, N, K), f32)]
    y, last, last_n, *found = call(
        _forward_kernel, "mlstm_forward",
        grid={"batch": B, "head": H, "column": blocks}, outputs=[*outputs, *kept * keep],
        scratch=[shared(TILE, TILE), shared(K, TILE), shared(TILE, TILE)],
    )(q, k, v, sums, lines, first, first_n)  # fmt: skip
    if keep:
        norms, states, normalisers = found
        found = [norms[:, :, 0], states, normalisers[:, :, 0]]
    return [y, last, last_n[:, :, 0], *found]


def _backward_kernel(q, k, v, dy, kept, kept_n, sums, lines, dlast, dlast_n, *refs) -> None:
    """The last chunk first. Products inside the chunk are transposed: rows are the earlier tokens.

    ``dy`` is the cotangent of what is divided, ``lines``: w, and that of the norm.
    """
    dq, dk, dv, pieces, dfirst, dfirst_n, low, dstate, dq_out, dk_out, dv_out, piece = refs
    b, h, c = (lax.axis_index(name) for name in ("batch", "head", "column"))
    N, V = sums.shape[2], v.shape[3]
    tiles, n_key = range(V // TILE), h // (v.shape[2] // k.shape[2])

    def step(done, q, k, v, dy, state, normaliser, sums, lines, carry):
        n, (dS, dn) = N - 1 - done, carry
        sent()
        for m in tiles:
            dstate[:, part(m)] = dS[m].astype(dstate.dtype)
        weight, dnorm = column(lines.at[0]), column(lines.at[1])
        decay = within_decays(sums, rows_later=False, log_scale=0.0) * by_row(weight)
        enter, leave, through = enter_decays(sums), leave_decays(sums) * weight, through_decay(sums)
        scores = product(k, transposed(q))
        put(low, scores * decay)
        for m in tiles:
            write = by_row(leave) * product(k, dstate.at[:, part(m)])
            dv_out[:, part(m)] = (product(low, dy.at[:, part(m)]) + write).astype(dv_out.dtype)
        dscores = (product(v, transposed(dy)) + by_column(row(lines.at[1]))) * decay
        r, i = indices()
        own = scores * dscores
        both = jnp.where(r == i, 0.0, own)  # a token's own product does not depend on forget gates
        own, earlier = jnp.sum(own, 1), jnp.sum(both, 1)
        piece[0] = jnp.sum(both, 0)
        put(low, dscores)
        write = by_row(leave) * (product(v, transposed(dstate)) + by_column(dn))
        dk_out[...] = (product(low, q) + write).astype(dk_out.dtype)
        piece[2] = written = jnp.sum(load(k) * write, 1)
        piece[5] = own + written
        read = by_row(enter) * (product(dy, transposed(state)) + by_row(dnorm) * by_column(row(normaliser)))
        dq_out[...] = (product(transposed(low), k) + read).astype(dq_out.dtype)
        piece[1] = jnp.sum(load(q) * read, 1) - earlier
        piece[3] = through * sum(jnp.sum(load(state.at[:, part(m)]) * dS[m], 1) for m in tiles)
        piece[4] = through * row(normaliser) * dn
        put(low, load(q) * by_row(enter))
        dS = tuple(through * dS[m] + product(transposed(low), dy.at[:, part(m)]) for m in tiles)
        dn = through * dn + jnp.sum(load(q) * by_row(enter * dnorm), 0)
        send(
            (dq_out, dq.at[b, part(n), h, part(c)]), (dk_out, dk.at[b, part(n), h, part(c)]),
            (dv_out, dv.at[c, b, part(n), h]), (piece, pieces.at[b, h, c, n]),
        )  # fmt: skip
        return dS, dn

    key = block((TILE, TILE), lambda n: (N - 1 - n, c))
    value = block((TILE, V), lambda n: (N - 1 - n, 0))
    gates = block((None, 2, TILE), lambda n: (N - 1 - n, 0, 0), factor=False)
    states = block((None, TILE, V), lambda n: (N - 1 - n, c, 0))
    normalisers = block((None, TILE), lambda n: (N - 1 - n, c), factor=False)
    dS, dn = scan(
        step, N, 2 if V <= 128 else 1, [key, key, value, value, states, normalisers, gates, gates],
        [q.at[b, :, n_key], k.at[b, :, n_key], v.at[b, :, h], dy.at[b, :, h],
         kept.at[b, h], kept_n.at[b, h], sums.at[b, h], lines.at[b, h]],
        (tuple(load(dlast.at[b, h, part(c), part(m)], optimized=False) for m in tiles),
         _columns(dlast_n.at[b, h, part(c)])),
    )  # fmt: skip
    for m in tiles:
        dfirst[b, h, part(c), part(m)] = dS[m]
    dfirst_n[b, h, part(c)] = dn
    sent(everywhere=True)


def backward(q, k, v, dy, kept, kept_n, sums, lines, dlast, dlast_n) -> list[jax.Array]:
    """The gradients of q and k for each value head; v; what belongs to gates; the first C and n.

    Of gates there are ``[B, H, N, 5, 64]``: four as ``gate_gradients`` takes them, and that of the logarithm of w.
    """
    (B, T, H, V), K, N, f32 = v.shape, q.shape[3], sums.shape[2], jnp.float32
    dkey, blocks = ((B, T, H, K), q.dtype), K // TILE
    outputs = [dkey, dkey, ((blocks, *v.shape), v.dtype), ((B, H, blocks, N, 6, TILE), f32)]
    outputs += [(dlast.shape, f32), (dlast_n.shape, f32)]
    dq, dk, dv, pieces, dfirst, dfirst_n = call(
        _backward_kernel, "mlstm_backward",
        grid={"batch": B, "head": H, "column": blocks}, outputs=outputs,
        scratch=[shared(TILE, TILE), shared(TILE, V), shared(TILE, TILE), shared(TILE, TILE), shared(TILE, V),
                 shared(6, TILE, dtype=f32)],
    )(q, k, v, dy, kept, kept_n, sums, lines, dlast, dlast_n)  # fmt: skip
    pieces = pieces.sum(2)
    pieces = jnp.concatenate([pieces[..., :3, :], pieces[..., 3:4, :] + pieces[..., 4:5, :], pieces[..., 5:, :]], -2)
    return [dq, dk, dv.astype(f32).sum(0), pieces, dfirst, dfirst_n]
