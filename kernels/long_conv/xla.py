"""Long convolution by FFT: of the whole row, or of halves, halves of halves and so on where segments must not mix."""

from functools import partial

import jax
import jax.numpy as jnp

from ..segments import segments
from ..short_conv.xla import permute, rows

BASE = 16
"""Blocks of this many tokens are convolved directly where there are segments."""


def unsupported(**_) -> str | None:
    """Everything runs."""
    return None


@jax.jit
def run(x, kernel, *, initial_state, segment_ids):
    """See ``long_conv``."""
    (B, T, D), n = x.shape, kernel.shape[0] - 1
    z = x.astype(kernel.dtype)
    past = jnp.zeros((B, n, D), kernel.dtype) if initial_state is None else initial_state
    if T == 1 and segment_ids is None:
        window = jnp.concatenate([past, z], axis=1)
        return jnp.sum(window * kernel[::-1], axis=1, keepdims=True).astype(x.dtype), window[:, 1:]
    if segment_ids is None:
        y = convolve(z if initial_state is None else jnp.concatenate([past, z], axis=1), kernel)[:, -T:]
        return y.astype(x.dtype), jnp.concatenate([past[:, T:], z[:, max(T - n, 0) :]], axis=1)

    seg = segments(segment_ids)
    order = jnp.argsort(~seg.valid, axis=1, stable=True)  # padding behind the tokens
    inverse = jnp.argsort(order, axis=1)
    z, number = permute(z, order, inverse), jnp.take_along_axis(seg.number, order, axis=1)
    before = jnp.zeros((B, n), number.dtype)  # the initial state belongs to segment 0
    if initial_state is None:
        y = convolve_segments(z, number, kernel)
    else:
        joined = jnp.concatenate([past, z], axis=1), jnp.concatenate([before, number], axis=1)
        y = convolve_segments(*joined, kernel)[:, -T:]
    y = jnp.where(seg.valid[..., None], permute(y, inverse, order), 0).astype(x.dtype)
    if n == 0:
        return y, past
    last = jnp.sum(seg.valid, axis=1, keepdims=True) + jnp.arange(n)
    same = rows(before, number, last) == seg.number[:, -1:]
    return y, jnp.where(same[..., None], rows(past, z, last), 0)


def convolve(z, kernel):
    """The causal convolution of each row, whole."""
    S = z.shape[1]
    kernel = kernel[:S]
    return circular(z, kernel, 1 << (S + kernel.shape[0] - 2).bit_length())[:, :S]


def circular(z, kernel, n):
    """The convolution along axis -2 on a circle of n tokens."""
    transform = partial(jnp.fft.rfft, n=n, axis=-1)
    product = transform(z.swapaxes(-1, -2)) * transform(kernel.T)
    return jnp.fft.irfft(product, n=n, axis=-1).swapaxes(-1, -2)


def convolve_segments(z, number, kernel):
    """The causal convolution within runs of equal ``number``."""
    S = z.shape[1]
    size = max(BASE, 1 << (S - 1).bit_length())
    fill = ((0, 0), (0, size - S))
    z, number = jnp.pad(z, (*fill, (0, 0))), jnp.pad(number, fill, mode="edge")
    kernel = jnp.pad(kernel[:size], ((0, max(size - kernel.shape[0], 0)), (0, 0)))
    y, b = within_blocks(z, number, kernel), BASE
    while b < size:
        y = y + across_halves(z, number, kernel[: 2 * b])
        b *= 2
    return y[:, :S]


@jax.checkpoint
def within_blocks(z, number, kernel):
    """What tokens of a block of ``BASE`` receive from each other."""
    shape = z.shape
    z, number = (a.reshape(shape[0], -1, BASE, *a.shape[2:]) for a in (z, number))
    y = jnp.zeros_like(z)
    for lag in range(BASE):
        reach = (number[..., lag:] == number[..., : BASE - lag])[..., None]
        y = y.at[:, :, lag:].add(jnp.where(reach, kernel[lag] * z[:, :, : BASE - lag], 0))
    return y.reshape(shape)


@jax.checkpoint
def across_halves(z, number, kernel):
    """What the right half of each block of as many tokens as the kernel has receives from the left half."""
    (B, S, D), size = z.shape, kernel.shape[0]
    z, number = (a.reshape(B, S // size, 2, size // 2, *a.shape[2:]) for a in (z, number))
    spans = (number == number[:, :, :1, -1:])[..., None]  # the segment of the left half's last token
    left = jnp.where(spans[:, :, 0], z[:, :, 0], 0)
    right = circular(left, kernel, size)[:, :, size // 2 :]  # what wraps around falls on the left half
    right = jnp.where(spans[:, :, 1], right, 0)
    return jnp.stack([jnp.zeros_like(right), right], axis=2).reshape(B, S, D)
