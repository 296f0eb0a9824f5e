"""What ``gpu.weights`` makes, where there is a gate for every key channel; the factors are then decayed here too.

The chunk is split dyadically. Tokens i in the right half of a block and j in its left half meet in the middle: the
decay from j to i is that from j to the middle times that from the middle to i, which scale the two factors of one
product. Every log-decay is the sum of the gates over exactly its interval: a product of the gates with zeros and ones,
the gates being two bfloat16 arrays whose sum they are, to 16 bits. So no exponent is positive, and nothing is
subtracted. An a that reads what is ``undecayed`` is decayed up to the token before.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from .chunk import axis, factor_cotangents, of_chunk, of_tokens, weight_cotangents
from .decay import LEAST
from .mosaic import (
    LOG2E,
    TILE,
    block,
    by_row,
    call,
    finished,
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
    zeros,
)  # fmt: skip
from .triangular import inverse

LEVELS = TILE.bit_length() - 1


def halves(g: jax.Array, border: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Natural-log gates ``[B, T, H, K]`` to the base 2, as the sum of two bfloat16 arrays; and ``through``.

    ``border``: ``[B, T]``, where a segment begins. ``through`` ``[B, H, N, K]`` is what is left of a state after a
    chunk.
    """
    g = jnp.maximum(g * LOG2E, LEAST)
    if border is not None:
        g = jnp.where(border[..., None, None], LEAST, g)
    B, T, H, K = g.shape
    through = jnp.exp2(g.reshape(B, T // TILE, TILE, H, K).sum(2)).swapaxes(1, 2)
    high = lax.reduce_precision(g, 8, 7)  # a cast there and back is nothing to the compiler
    return high.astype(jnp.bfloat16), (g - high).astype(jnp.bfloat16), through


def _sums(matrix, which: jax.Array, high, low) -> jax.Array:
    """For each token, the sum of the rows that are true in its row of ``which``."""
    put(matrix, jnp.where(which, 1.0, 0.0))
    return product(matrix, high, (matrix, low))


def _to_the_middle(n) -> jax.Array:
    """At level n: the gates from the middle of a token's block to the token, or from after the token to the middle."""
    i, j = indices()
    in_right, before = (i >> n) & 1, jnp.where(j <= i, 1, 0)
    return ((i >> n) == (j >> n)) & (in_right == before)


def _meeting(n) -> jax.Array:
    """The pairs of a later and an earlier token that meet at level n."""
    i, j = indices()
    return (i > j) & ((i ^ j) >> n == 1)


def _forward_kernel(scale: float, erases: bool, undecayed: bool, *refs) -> None:
    q, k, high, low, *refs = refs
    a, refs = refs[:erases], refs[erases:]
    H, K = high.shape[2:]
    P, q_out, k_out, *refs = refs
    erasing, (matrix, q_low, k_low, *a_low) = refs[: 2 * erases], refs[2 * erases :]
    b, h, n = axis("batch"), axis("head"), axis("chunk")
    i, j = indices()

    def step(m, q, k, high, low, *rest):
        a, weights = rest[:erases], rest[-1]
        sent()
        decays = lambda which: jnp.exp2(_sums(matrix, which, high, low))  # noqa: E731

        def level(n, weights):
            between, meeting = _to_the_middle(n), _meeting(n)
            decay = decays(between)
            put(q_low, load(q) * decay)
            put(k_low, load(k) * decay)
            if undecayed:
                decay = decays(between & (i != j))
            for ref, x in zip(a_low, a, strict=True):
                put(ref, load(x) * decay)
            scores = [product(ref, transposed(k_low)) for ref in (q_low, *a_low)]
            return [w + jnp.where(meeting, s, 0.0) for w, s in zip(weights, scores, strict=True)]

        weights = lax.fori_loop(0, LEVELS, level, weights)
        weights[0] += jnp.where(i == j, product(q, transposed(k)), 0.0)
        enter = decays(j <= i)
        put(q_low, load(q) * enter * scale)
        if undecayed:
            enter = decays(j < i)
        for ref, x in zip(a_low, a, strict=True):
            put(ref, load(x) * enter)
        put(k_low, load(k) * decays(j > i))
        outputs = [(q_low, q_out), (k_low, k_out), *zip(a_low, erasing[1:], strict=True)]
        send(*((ref, out.at[b, part(n), h, part(m)]) for ref, out in outputs))
        return weights

    tile = block((TILE, TILE), lambda m: (n, m))
    cut = [of_tokens(ref, H) for ref in (q, k, high, low, *a)]
    weights = scan(step, K // TILE, 1, [tile] * len(cut), cut, [zeros()] * (1 + erases))
    sent()
    put(q_low, weights[0] * scale)
    if erases:
        put(k_low, inverse(weights[1], k_low, a_low[0]))
    send((q_low, P.at[b, h, n]), *((k_low, X.at[b, h, n]) for X in erasing[:1]))
    sent(everywhere=True)


def forward(scale: float, undecayed: bool, q, k, a, high, low) -> dict[str, jax.Array]:
    """The P, q and k of ``gpu.walk`` and, if there is ``a``, X and a."""
    B, T, H, _ = high.shape
    erases = a is not None
    square, tokens = ((B, H, T // TILE, TILE, TILE), q.dtype), (high.shape, q.dtype)
    found = call(
        functools.partial(_forward_kernel, scale, erases, undecayed), "vector_weights_forward",
        grid={"batch": B, "head": H, "chunk": T // TILE},
        outputs=[square, tokens, tokens, *([square, tokens] if erases else [])],
        scratch=[shared(TILE, TILE)] * (3 + erases),
    )(q, k, high, low, *([a] if erases else []))  # fmt: skip
    return dict(zip(("P", "q", "k", "X", "a"), found, strict=False))


def _backward_kernel(scale: float, erases: bool, undecayed: bool, *refs) -> None:
    q, k, high, low, *refs = refs
    a, (u, dv, dy, states, dstates, dq_out, dk_out, *refs) = refs[:erases], refs[erases:]
    da_out, (dg, passed, of_p, dk_low, piece, *of_a) = refs[:erases], refs[erases:]
    b, h, n, c = axis("batch"), axis("head"), axis("chunk"), axis("column")
    tile = b, part(n), h, part(c)
    i, j = indices()

    def step(q, k, high, low, *a):
        dweights = weight_cotangents(u, dv, dy, erases=erases)
        dweights[0] *= scale
        own = jnp.sum(jnp.where(i == j, dweights[0], 0.0), 1)
        of_weights = [of_p, *of_a]
        for ref, x in zip(of_weights, dweights, strict=True):
            put(ref, x)
        (dread, dwrite, *dheld), passing = factor_cotangents(u, dv, dy, states, dstates, erases=erases)
        piece[...] = passing
        put(dk_low, dwrite)
        lefts = [q, *a]

        def decayed(matrix, k_met, *refs):
            met, left_met = refs[: 1 + erases], refs[1 + erases :]
            decays = lambda which: jnp.exp2(_sums(matrix, which, high, low))  # noqa: E731
            enter = decays(j <= i)
            dlefts = [enter * scale * dread]
            if undecayed:
                enter = decays(j < i)
            dlefts += [enter * x for x in dheld]

            def level(n, carry):
                dk, *dlefts = carry
                between, meeting = _to_the_middle(n), _meeting(n)
                decay = decays(between)
                left_decays = [decay, *[decays(between & (i != j)) if undecayed else decay] * erases]
                put(k_met, load(k) * decay)
                for ref, x, left_decay in zip(left_met, lefts, left_decays, strict=True):
                    put(ref, load(x) * left_decay)
                for ref, x in zip(met, of_weights, strict=True):
                    put(ref, jnp.where(meeting, load(x), 0.0))
                pairs = [(transposed(m), x) for m, x in zip(met, left_met, strict=True)]
                dk += decay * product(*pairs[0], *pairs[1:])
                found = zip(dlefts, left_decays, met, strict=True)
                return dk, *(dx + left_decay * product(m, k_met) for dx, left_decay, m in found)

            dk, *dlefts = lax.fori_loop(0, LEVELS, level, (zeros(), *dlefts))
            # A gate decays what passes it: between two tokens, and from before, up to where it is read; to after.
            moved = load(q) * dlefts[0] - load(k) * dk
            held = sum(load(x) * dx for x, dx in zip(a, dlefts[1:], strict=True))
            dwrite = load(dk_low) * decays(j > i)

            def summed(which, x):
                put(k_met, x)
                put(met[0], x - load(k_met))
                return _sums(matrix, which, k_met, met[0])

            until = [(j >= i, moved), (j > i, held)] if undecayed else [(j >= i, moved + held)]
            dg[tile] = sum(summed(*x) for x in (*until, (j < i, load(k) * dwrite)))
            # A token's own product does not depend on gates.
            dlefts[0] += by_row(own) * load(k)
            put(dk_low, dk + dwrite + by_row(own) * load(q))
            for ref, dx in zip(left_met, dlefts, strict=True):
                put(ref, dx)
            pairs = [(dk_low, dk_out), *zip(left_met, [dq_out, *da_out], strict=True)]
            send(*((ref, out.at[tile]) for ref, out in pairs), (piece, passed.at[b, h, n, part(c)]))
            finished()
            sent(everywhere=True)

        pl.run_scoped(decayed, *[shared(TILE, TILE)] * (4 + 2 * erases))

    of_chunk(step, [q, k, high, low, *a], [], high.shape[2], width=TILE, column=c)


def backward(scale: float, undecayed: bool, q, k, a, gates: tuple, walked: tuple) -> list[jax.Array | None]:
    """The gradients of q, k and a for each value head, and of the natural-log gates ``[B, T, H, K]``.

    ``gates`` are those of ``halves``; ``walked`` are u, the cotangents of v and y, the states that enter and the
    cotangents of those that leave.
    """
    high, low, through = gates
    B, T, H, K = high.shape
    N, erases, tokens = T // TILE, a is not None, (high.shape, q.dtype)
    dq, dk, *da, dg, passed = call(
        functools.partial(_backward_kernel, scale, erases, undecayed), "vector_weights_backward",
        grid={"batch": B, "head": H, "chunk": N, "column": K // TILE},
        outputs=[*[tokens] * (2 + erases), (high.shape, jnp.float32), ((B, H, N, K), jnp.float32)],
        scratch=[*[shared(TILE, TILE)] * 2, shared(TILE, dtype=jnp.float32), *[shared(TILE, TILE)] * erases],
    )(q, k, high, low, *([a] if erases else []), *walked)  # fmt: skip
    whole = jnp.repeat((through * passed).swapaxes(1, 2), TILE, 1)
    return [dq, dk, da[0] if erases else None, dg + whole]
