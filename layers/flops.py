"""What a floating-point operation is here, stated once: the unit of every ``flops_per_token``.

Counted are the multiplications and additions of matrix products (2 for each multiply-add), and of each recurrence as
its definition states it, on arrays as large as the state; attention counts the pairs its causal mask (and window)
lets through. Not counted: norms, activations, gates, rotary positions and other work that is linear in the width.
How an implementation chunks its work changes nothing, so two machines, or two kernels, report the same number.
"""


def projection(inputs: int, outputs: int) -> float:
    """One row through a matrix."""
    return 2.0 * inputs * outputs


def short_conv(width: int, channels: int) -> float:
    """One token through a depthwise filter."""
    return 2.0 * width * channels


def gla(heads: int, K: int, V: int) -> float:
    """Decay the state, form k v^T, add it, read with q: (1 + 1 + 1 + 2) K V a head."""
    return 5.0 * heads * K * V


def delta_rule(heads: int, K: int, V: int) -> float:
    """As ``gla``, and the read with k of what the state holds: (1 + 2 + 1 + 1 + 2) K V a head."""
    return 7.0 * heads * K * V


def dplr(heads: int, K: int, V: int) -> float:
    """As ``gla``, and the read of the state with a, its product with b, and their sum: (5 + 2 + 1 + 1) K V a head."""
    return 9.0 * heads * K * V


def linear_scan(channels: int) -> float:
    """One multiply-add a channel."""
    return 2.0 * channels


def attention(heads: int, K: int, T: int, window: int | None) -> float:
    """Scores and weighted sum over the tokens seen, averaged over a sequence of T."""
    W = T if window is None else min(window, T)
    seen = (W * (W + 1) / 2 + (T - W) * W) / T
    return 4.0 * heads * K * seen
