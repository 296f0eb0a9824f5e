"""What a floating-point operation is here, stated once: the unit of every ``flops_per_token``.

Counted are the multiplications and additions of matrix products (2 for each multiply-add), and of each recurrence as
its definition states it, on arrays as large as the state; attention counts the pairs its causal mask (and window)
lets through. Not counted: norms, activations, gates, rotary positions and other work that is linear in the width.
How an implementation chunks its work changes nothing, so two machines, or two kernels, report the same number.
"""


def projection(inputs: int, outputs: int) -> float:
    """One row through a matrix. A ternary one counts as dense: it is run as one, and its additions would be half."""
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


def conjugate_gradient(heads: int, K: int, steps: int) -> float:
    """Each step: one product with a K x K matrix, and 10 passes over vectors."""
    return steps * heads * (2.0 * K * K + 10.0 * K)


def ttt_linear(heads: int, K: int) -> float:
    """Update and clear (3 K K a head); the map, and k through it (1 + 2); the gradient formed and added (2); what it
    leaves of the map, and q through that (2 + 2); and 27 passes over vectors, which narrow heads do not hide.
    """
    return heads * (12.0 * K * K + 27.0 * K)


def mlstm(heads: int, K: int, V: int) -> float:
    """As ``gla``, with the normaliser as one column more."""
    return gla(heads, K, V + 1)


def recurrent(heads: int, D: int, gates: int, arithmetic: int) -> float:
    """The hidden state of a head through the matrix of each gate, and so many operations on each of its channels."""
    return heads * (gates * projection(D, D) + arithmetic * D)


def slstm(heads: int, D: int) -> float:
    """Four gates with 4 sums; decay and unit, 3 operations; memory, normaliser and output, 6."""
    return recurrent(heads, D, 4, 13)


def dplr(heads: int, K: int, V: int) -> float:
    """As ``gla``, and the read of the state with a, its product with b, and their sum: (5 + 2 + 1 + 1) K V a head."""
    return 9.0 * heads * K * V


def log_linear(heads: int, K: int, V: int, levels: int) -> float:
    """Each level's state decays, is weighed and added up, joins a larger block and may be one (1 + 2 + 2 + 2); the new
    write is formed, weighed and added twice, and what is weighed is read (4 + 2).
    """
    return heads * K * V * (7.0 * (levels - 1) + 6.0)


def linear_scan(channels: int) -> float:
    """One multiply-add a channel."""
    return 2.0 * channels


def complex_scan(channels: int) -> float:
    """One multiply-add of complex numbers a channel: 6 + 2 operations on real ones."""
    return 8.0 * channels


def longhorn(channels: int, N: int) -> float:
    """As ``selective_scan``, with delta k^2 and 1 minus it for the decay: (2 + 1 + 1 + 1 + 2) N a channel."""
    return 7.0 * channels * N


def diagonal_ssm(channels: int, N: int) -> float:
    """Decay the complex state, add the input, read the real part with c: (6 + 2 + 4) N a channel."""
    return 12.0 * channels * N


def selective_scan(channels: int, N: int) -> float:
    """Form the decay, decay the state, form dt x B, add it, read with C: (1 + 1 + 1 + 1 + 2) N a channel."""
    return 6.0 * channels * N


def attention(heads: int, K: int, T: int, window: int | None) -> float:
    """Scores and weighted sum over the tokens seen, averaged over a sequence of T."""
    W = T if window is None else min(window, T)
    seen = (W * (W + 1) / 2 + (T - W) * W) / T
    return 4.0 * heads * K * seen


def blocks_before(T: int, block: int) -> float:
    """How many whole blocks lie before a token's own, averaged over a sequence of T."""
    whole, rest = divmod(T, block)
    return (block * whole * (whole - 1) / 2 + rest * whole) / T


def blocks_seen(T: int, block: int) -> float:
    """How many blocks end with a token or before it, averaged over a sequence of T."""
    return blocks_before(T + 1, block) * (T + 1) / T
