"""Long convolution: a causal depthwise filter that may be as long as the sequence, by FFT.

    y_t = sum_j kernel_j x_{t-j}        j = 0 .. L-1

It is ``short_conv`` with many taps, in another order: here tap j is the weight of the input j tokens ago. The state is
the last L - 1 inputs, zero before the segment's start: a filter without structure needs its whole past.
"""

from typing import Any

from jaxtyping import Array, Float, Int

from .. import checks, dispatch


def prepare(x, kernel, *, initial_state=None, segment_ids=None) -> dict[str, Any]:
    """Checks the arguments of ``long_conv``; without an initial state, implementations need not convolve its zeros."""
    sizes: dict[str, int] = {}
    checks.expect("long_conv", "x", x, "B T D", sizes)
    checks.expect("long_conv", "kernel", kernel, "L D", sizes)
    if sizes["L"] < 1:
        raise ValueError(f"long_conv: kernel has shape {tuple(kernel.shape)}; expected [L, D] with L >= 1")
    dtype, sizes["L-1"] = checks.state_dtype(x, kernel), sizes["L"] - 1
    if initial_state is not None:
        checks.expect("long_conv", "initial_state", initial_state, "B L-1 D", sizes)
        initial_state = initial_state.astype(dtype)
    if segment_ids is not None:
        checks.expect_ids("long_conv", segment_ids, sizes)
    return {
        "x": x, "kernel": kernel.astype(dtype), "initial_state": initial_state, "segment_ids": segment_ids,
    }  # fmt: skip


def long_conv(
    x: Float[Array, "B T D"],
    kernel: Float[Array, "L D"],
    *,
    initial_state: Float[Array, "B past D"] | None = None,
    segment_ids: Int[Array, "B T"] | None = None,
    impl: str = "auto",
) -> tuple[Float[Array, "B T D"], Float[Array, "B past D"]]:
    """Causal depthwise convolution with a long kernel: ``y_t = sum_j kernel_j x_{t-j}``.

    Packed documents do not leak: time is halved again and again, and the inputs of a left half reach the outputs of its
    right half only within the one segment that spans the middle. Inputs and outputs of others are set to zero around
    each product, so that a row costs O(T log^2 T) however many documents it holds; without ``segment_ids``, O(T log T).

    Args:
      x: inputs ``[B, T, D]``.
      kernel: the filter ``[L, D]``; ``kernel[0]`` multiplies the current token. L may be less or more than T.
      initial_state: the L - 1 inputs before the first token, oldest first, ``[B, L-1, D]``; zeros if None.
      segment_ids: packed documents, ``[B, T]``; the filter does not reach over a change of id, and passes over padding
        (a negative id) as if it were not there.
      impl: ``"auto"``, ``"xla"`` or ``"reference"``.

    Returns:
      The outputs ``[B, T, D]`` in x's dtype, and the last L - 1 inputs of the last segment, ``[B, L-1, D]``.

    Raises:
      ValueError: an argument has the wrong rank or width, or the named implementation cannot run it.

    Source: Romero et al. (2021), CKConv, arXiv 2102.02611; Poli et al. (2023), Hyena Hierarchy, arXiv 2302.10866.
    """
    prepared = prepare(x, kernel, initial_state=initial_state, segment_ids=segment_ids)
    return dispatch.call("long_conv", impl, **prepared)
