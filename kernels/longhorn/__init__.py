"""Longhorn: the recurrence of implicit online learning, N states to each channel.

    h_t = (1 - delta_t (k_t^2)^T) * h_{t-1} + (delta_t x_t) k_t^T        y_t = h_t q_t

``h`` is ``[D, N]``. It solves ``min |h - h_{t-1}|^2 + beta (h k - x)^2``, with ``delta = beta / (1 + beta |k|^2)`` and
the off-diagonal terms of k k^T left out. The decay is not of the form ``exp(dt A)``, so that it is no selective scan.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .. import checks, dispatch


def prepare(x, delta, k, q, *, initial_state=None, segment_ids=None) -> dict[str, Any]:
    """Checks the arguments of ``longhorn`` and fills its defaults."""
    sizes: dict[str, int] = {}
    checks.expect("longhorn", "x", x, "B T D", sizes)
    checks.expect("longhorn", "delta", delta, "B T D", sizes)
    checks.expect("longhorn", "k", k, "B T N", sizes)
    checks.expect("longhorn", "q", q, "B T N", sizes)
    dtype = checks.state_dtype(x, delta, k, q)
    if initial_state is None:
        initial_state = jnp.zeros([sizes[axis] for axis in "BDN"], dtype)
    checks.expect("longhorn", "initial_state", initial_state, "B D N", sizes)
    if segment_ids is not None:
        checks.expect_ids("longhorn", segment_ids, sizes)
    return {
        "x": x, "delta": delta, "k": k, "q": q,
        "initial_state": initial_state.astype(dtype), "segment_ids": segment_ids,
    }  # fmt: skip


def longhorn(
    x: Float[Array, "B T D"],
    delta: Float[Array, "B T D"],
    k: Float[Array, "B T N"],
    q: Float[Array, "B T N"],
    *,
    initial_state: Float[Array, "B D N"] | None = None,
    segment_ids: Int[Array, "B T"] | None = None,
    impl: str = "auto",
) -> tuple[Float[Array, "B T D"], Float[Array, "B D N"]]:
    """Longhorn's recurrence: ``h_t = (1 - delta_t k_t^2) h_{t-1} + delta_t x_t k_t^T``, ``y_t = h_t q_t``.

    Args:
      x: inputs ``[B, T, D]``.
      delta: step sizes ``[B, T, D]``; below ``1 / |k|^2``, as ``beta / (1 + beta |k|^2)`` is, decays stay in (0, 1).
      k: keys, ``[B, T, N]``, shared by the channels.
      q: queries, ``[B, T, N]``.
      initial_state: h_0, ``[B, D, N]``; zeros if None.
      segment_ids: packed documents, ``[B, T]``; the state resets where the id changes, a negative id is padding.
      impl: ``"auto"``, ``"xla"`` or ``"reference"``.

    Returns:
      The outputs ``[B, T, D]`` in x's dtype, and the state after the last token, ``[B, D, N]``.

    Raises:
      ValueError: an argument has the wrong rank or width, or the named implementation cannot run it.

    Source: Liu et al. (2024), Longhorn, arXiv 2407.14207.
    """
    prepared = prepare(x, delta, k, q, initial_state=initial_state, segment_ids=segment_ids)
    return dispatch.call("longhorn", impl, **prepared)
