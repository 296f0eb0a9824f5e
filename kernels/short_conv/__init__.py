"""Short convolution: a causal depthwise filter over the last W tokens, usual before q, k and v in linear attention.

    y_t = act(b + sum_j w_j x_{t - (W-1) + j})        j = 0 .. W-1

The state is the last W - 1 inputs, zero before the segment's start.
"""

from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .. import checks, dispatch


def prepare(x, w, b=None, *, initial_state=None, segment_ids=None, activation=None) -> dict[str, Any]:
    """Checks the arguments of ``short_conv`` and fills its defaults."""
    sizes: dict[str, int] = {}
    checks.expect("short_conv", "x", x, "B T D", sizes)
    checks.expect("short_conv", "w", w, "W D", sizes)
    if sizes["W"] < 1:
        raise ValueError(f"short_conv: w has shape {tuple(w.shape)}; expected [W, D] with W >= 1")
    if b is not None:
        checks.expect("short_conv", "b", b, "D", sizes)
    if activation not in (None, "silu"):
        raise ValueError(f"short_conv: there is no activation={activation!r}; choose from None, 'silu'")
    dtype, sizes["W-1"] = checks.state_dtype(x, w), sizes["W"] - 1
    if initial_state is None:
        initial_state = jnp.zeros([sizes[axis] for axis in ("B", "W-1", "D")], dtype)
    checks.expect("short_conv", "initial_state", initial_state, "B W-1 D", sizes)
    if segment_ids is not None:
        checks.expect_ids("short_conv", segment_ids, sizes)
    return {
        "x": x, "w": w, "b": b,
        "initial_state": initial_state.astype(dtype), "segment_ids": segment_ids, "activation": activation,
    }  # fmt: skip


def short_conv(
    x: Float[Array, "B T D"],
    w: Float[Array, "W D"],
    b: Float[Array, " D"] | None = None,
    *,
    initial_state: Float[Array, "B tail D"] | None = None,
    segment_ids: Int[Array, "B T"] | None = None,
    activation: Literal["silu"] | None = None,
    impl: str = "auto",
) -> tuple[Float[Array, "B T D"], Float[Array, "B tail D"]]:
    """Causal depthwise convolution: ``y_t = act(b + sum_j w_j x_{t - (W-1) + j})``.

    Args:
      x: inputs ``[B, T, D]``.
      w: filter ``[W, D]``; ``w[W-1]`` multiplies the current token.
      b: bias ``[D]``, or None.
      initial_state: the W - 1 inputs before the first token, ``[B, W-1, D]``; zeros if None.
      segment_ids: packed documents, ``[B, T]``; a filter does not reach over a change of id, and passes over padding
        (a negative id) as if it were not there.
      activation: None or ``"silu"``, applied last.
      impl: ``"auto"``, ``"pallas_tpu"``, ``"pallas_gpu"``, ``"xla"`` or ``"reference"``.

    Returns:
      The outputs ``[B, T, D]`` in x's dtype, and the last W - 1 inputs of the last segment, ``[B, W-1, D]``.

    Raises:
      ValueError: an argument has the wrong rank or width, or the named implementation cannot run it.

    Source: Poli et al. (2023), Hyena Hierarchy, arXiv 2302.10866; Gu & Dao (2023), Mamba, arXiv 2312.00752.
    """
    prepared = prepare(x, w, b, initial_state=initial_state, segment_ids=segment_ids, activation=activation)
    return dispatch.call("short_conv", impl, **prepared)
