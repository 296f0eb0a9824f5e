"""W shifted multiply-adds over a few rows at a time, which then stay in a CPU's cache.

Taken over all of T at once, the shifted copies and their gradients go through memory: twice the time, eight times the
space. XLA's depthwise convolution takes ten times as long.
"""

from functools import partial

import jax
import jax.numpy as jnp

from ..chunks import scan_whole_chunks
from ..segments import segments

ROWS = 32


def unsupported(**_) -> str | None:
    """The shifts run everything."""
    return None


@partial(jax.jit, static_argnames="activation")
def run(x, w, b, *, initial_state, segment_ids, activation):
    """See ``short_conv``."""
    return by_segment(partial(_in_pieces, activation), x, w, b, initial_state, segment_ids)


def _in_pieces(activation, x, w, b, tail, same):
    return scan_rows(partial(convolve, activation), (w, b), tail, x, same)


def by_segment(convolved, x, w, b, initial_state, segment_ids):
    """``convolved(x, w, b, tail, same)``, see ``convolve``, with padding behind the tokens; and the tail."""
    (B, T, _), n = x.shape, w.shape[0] - 1
    w, b = jax.tree.map(lambda z: z.astype(initial_state.dtype), (w, b))  # their gradients sum over all pieces
    if segment_ids is None:
        y = convolved(x, w, b, initial_state, None)
        return y, jnp.concatenate([initial_state[:, T:], x[:, max(T - n, 0) :].astype(initial_state.dtype)], axis=1)
    seg = segments(segment_ids)
    order = jnp.argsort(~seg.valid, axis=1, stable=True)  # padding behind the tokens
    inverse = jnp.argsort(order, axis=1)
    x, number = permute(x, order, inverse), jnp.take_along_axis(seg.number, order, axis=1)
    before = jnp.zeros((B, n), number.dtype)  # the initial state belongs to segment 0
    same = jnp.stack([delay(number, before, n - j) == number for j in range(n + 1)], axis=2)
    y = permute(convolved(x, w, b, initial_state, same), inverse, order)
    last = jnp.sum(seg.valid, axis=1, keepdims=True) + jnp.arange(n)
    tail = rows(initial_state, x.astype(initial_state.dtype), last)
    same = rows(before, number, last) == seg.number[:, -1:]
    return jnp.where(seg.valid[..., None], y, 0), jnp.where(same[..., None], tail, 0)


def convolve(activation, params, tail, x, same):
    """One piece of x; ``same[:, t, j]`` says whether the input under tap j at t is in the segment of t."""
    (w, b), C = params, x.shape[1]
    inputs = jnp.concatenate([tail, x.astype(tail.dtype)], axis=1)
    y = jnp.zeros((), tail.dtype) if b is None else b
    for j, tap in enumerate(w):
        past = inputs[:, j : j + C]
        y = y + tap * (past if same is None else jnp.where(same[:, :, j, None], past, 0))
    return inputs[:, C:], (jax.nn.silu(y) if activation == "silu" else y).astype(x.dtype)


def scan_rows(step, params, tail, x, same):
    """y, in pieces of about ``ROWS`` rows; zeros fill up the last one."""
    T = x.shape[1]
    pieces = -(-T // ROWS)
    C = -(-T // pieces)
    pad = lambda z: jnp.pad(z, ((0, 0), (0, pieces * C - T), (0, 0)))  # noqa: E731
    y, _ = scan_whole_chunks(step, C, params, tail, *jax.tree.map(pad, (x, same)))
    return y[:, :T]


def delay(z, before, d):
    """z moved d tokens on, behind the last d entries of ``before``; T entries in all."""
    T, start = z.shape[1], before.shape[1] - d
    kept = max(T - d, 0)
    return jnp.concatenate([before[:, start : start + T - kept], z[:, :kept]], axis=1)


def rows(before, z, index):
    """The rows ``index`` ``[B, W-1]`` of ``before`` followed by z, without joining the two."""
    expand = lambda i: i.reshape(i.shape + (1,) * (z.ndim - 2))  # noqa: E731
    n = before.shape[1]
    early = jnp.take_along_axis(before, expand(jnp.minimum(index, n - 1)), axis=1)
    late = jnp.take_along_axis(z, expand(jnp.maximum(index - n, 0)), axis=1)
    return jnp.where(expand(index < n), early, late)


@jax.custom_vjp
def permute(x, order, inverse):
    """``y[b, t] = x[b, order[b, t]]``."""
    return jnp.take_along_axis(x, order[..., None], axis=1)


def permute_forward(x, order, inverse):
    """Keeps the permutation."""
    return permute(x, order, inverse), (order, inverse)


def permute_backward(kept, dy):
    """The inverse permutation: a gather, where autodiff would scatter."""
    order, inverse = kept
    return permute(dy, inverse, order), None, None


permute.defvjp(permute_forward, permute_backward)
