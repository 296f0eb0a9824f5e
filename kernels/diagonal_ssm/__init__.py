"""Diagonal SSM: a time-invariant recurrence of N complex states to each channel, as in S4D and H3.

    h_t = exp(log_a) * h_{t-1} + x_t        y_t = Re sum_n c_n h_tn

It is the causal convolution of x with the kernel ``K_j = Re sum_n c_n exp(j log_a_n)``, with a state of constant size.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Int

from .. import checks, dispatch


def prepare(x, log_a, c, *, initial_state=None, segment_ids=None) -> dict[str, Any]:
    """Checks the arguments of ``diagonal_ssm`` and fills its defaults."""
    sizes: dict[str, int] = {}
    checks.expect("diagonal_ssm", "x", x, "B T D", sizes)
    checks.expect("diagonal_ssm", "log_a", log_a, "D N", sizes)
    checks.expect("diagonal_ssm", "c", c, "D N", sizes)
    dtype = jnp.result_type(jnp.complex64, checks.state_dtype(x, log_a, c))
    if initial_state is None:
        initial_state = jnp.zeros([sizes[axis] for axis in "BDN"], dtype)
    checks.expect("diagonal_ssm", "initial_state", initial_state, "B D N", sizes)
    if segment_ids is not None:
        checks.expect_ids("diagonal_ssm", segment_ids, sizes)
    return {
        "x": x, "log_a": log_a.astype(dtype), "c": c.astype(dtype),
        "initial_state": initial_state.astype(dtype), "segment_ids": segment_ids,
    }  # fmt: skip


def diagonal_ssm(
    x: Float[Array, "B T D"],
    log_a: Complex[Array, "D N"],
    c: Complex[Array, "D N"],
    *,
    initial_state: Complex[Array, "B D N"] | None = None,
    segment_ids: Int[Array, "B T"] | None = None,
    impl: str = "auto",
) -> tuple[Float[Array, "B T D"], Complex[Array, "B D N"]]:
    """Time-invariant diagonal state space model: ``h_t = exp(log_a) h_{t-1} + x_t``, ``y_t = Re sum_n c_n h_tn``.

    Args:
      x: inputs ``[B, T, D]``.
      log_a: logarithms of the decays, ``[D, N]``, complex, with real parts <= 0.
      c: what reads, times what writes (only their product matters), ``[D, N]``, complex.
      initial_state: h_0, ``[B, D, N]``, complex; zeros if None.
      segment_ids: packed documents, ``[B, T]``; the state resets where the id changes, a negative id is padding.
      impl: ``"auto"``, ``"xla"`` or ``"reference"``.

    Returns:
      The outputs ``[B, T, D]`` in x's dtype, and the state after the last token, ``[B, D, N]``, complex.

    Raises:
      ValueError: an argument has the wrong rank or width, or the named implementation cannot run it.

    Source: Gu, Gupta, Goel & Re (2022), On the Parameterization and Initialization of Diagonal State Space Models,
    arXiv 2206.11893.
    """
    prepared = prepare(x, log_a, c, initial_state=initial_state, segment_ids=segment_ids)
    return dispatch.call("diagonal_ssm", impl, **prepared)
