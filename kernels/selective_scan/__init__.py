"""Selective scan: the recurrence of Mamba (S6), N states to each channel, with decays that the input sets.

    h_t = exp(dt_t A) * h_{t-1} + (dt_t x_t) B_t^T        y_t = h_t C_t

``h`` is ``[D, N]``: channel d forgets state n at the rate ``dt_t[d] A[d, n]``. B and C are shared by the channels.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .. import checks, dispatch


def prepare(x, dt, A, B, C, *, initial_state=None, segment_ids=None) -> dict[str, Any]:
    """Checks the arguments of ``selective_scan`` and fills its defaults."""
    sizes: dict[str, int] = {}
    checks.expect("selective_scan", "x", x, "B T D", sizes)
    checks.expect("selective_scan", "dt", dt, "B T D", sizes)
    checks.expect("selective_scan", "A", A, "D N", sizes)
    checks.expect("selective_scan", "B", B, "B T N", sizes)
    checks.expect("selective_scan", "C", C, "B T N", sizes)
    dtype = checks.state_dtype(x, dt, A, B, C)
    if initial_state is None:
        initial_state = jnp.zeros([sizes[axis] for axis in "BDN"], dtype)
    checks.expect("selective_scan", "initial_state", initial_state, "B D N", sizes)
    if segment_ids is not None:
        checks.expect_ids("selective_scan", segment_ids, sizes)
    return {
        "x": x, "dt": dt, "A": A, "B": B, "C": C,
        "initial_state": initial_state.astype(dtype), "segment_ids": segment_ids,
    }  # fmt: skip


def selective_scan(
    x: Float[Array, "B T D"],
    dt: Float[Array, "B T D"],
    A: Float[Array, "D N"],
    B: Float[Array, "B T N"],
    C: Float[Array, "B T N"],
    *,
    initial_state: Float[Array, "B D N"] | None = None,
    segment_ids: Int[Array, "B T"] | None = None,
    impl: str = "auto",
) -> tuple[Float[Array, "B T D"], Float[Array, "B D N"]]:
    """Selective state space scan: ``h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T``, ``y_t = h_t C_t``.

    Args:
      x: inputs ``[B, T, D]``.
      dt: step sizes ``[B, T, D]``, positive (after the softplus).
      A: rates ``[D, N]``, negative: state n of channel d decays by ``exp(dt A)``.
      B: what writes, ``[B, T, N]``.
      C: what reads, ``[B, T, N]``.
      initial_state: h_0, ``[B, D, N]``; zeros if None.
      segment_ids: packed documents, ``[B, T]``; the state resets where the id changes, a negative id is padding.
      impl: ``"auto"``, ``"pallas_tpu"``, ``"pallas_gpu"``, ``"xla"`` or ``"reference"``.

    Returns:
      The outputs ``[B, T, D]`` in x's dtype, and the state after the last token, ``[B, D, N]``. The skip ``D x`` and
      the gate of the Mamba layer are not part of it.

    Raises:
      ValueError: an argument has the wrong rank or width, or the named implementation cannot run it.

    Source: Gu & Dao (2023), Mamba, arXiv 2312.00752.
    """
    prepared = prepare(x, dt, A, B, C, initial_state=initial_state, segment_ids=segment_ids)
    return dispatch.call("selective_scan", impl, **prepared)
