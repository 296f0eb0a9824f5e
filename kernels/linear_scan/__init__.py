"""Linear scan: the diagonal recurrence of RG-LRU (Griffin), HGRN, minGRU, minLSTM and QRNN; complex: of LRU and S5.

    h_t = a_t h_{t-1} + x_t        y_t = h_t

Everything is elementwise over the D channels; with ``reverse=True`` it runs from the last token to the first.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int

from .. import checks, dispatch


def prepare(a, x, *, initial_state=None, segment_ids=None, reverse=False) -> dict[str, Any]:
    """Checks the arguments of ``linear_scan`` and fills its defaults."""
    sizes: dict[str, int] = {}
    checks.expect("linear_scan", "x", x, "B T D", sizes)
    checks.expect("linear_scan", "a", a, "B T D", sizes)
    dtype = checks.state_dtype(a, x)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        a, x = a.astype(dtype), x.astype(dtype)
    if initial_state is None:
        initial_state = jnp.zeros((sizes["B"], sizes["D"]), dtype)
    checks.expect("linear_scan", "initial_state", initial_state, "B D", sizes)
    if segment_ids is not None:
        checks.expect_ids("linear_scan", segment_ids, sizes)
    return {
        "a": a, "x": x,
        "initial_state": initial_state.astype(dtype), "segment_ids": segment_ids, "reverse": reverse,
    }  # fmt: skip


def linear_scan(
    a: Inexact[Array, "B T D"],
    x: Inexact[Array, "B T D"],
    *,
    initial_state: Inexact[Array, "B D"] | None = None,
    segment_ids: Int[Array, "B T"] | None = None,
    reverse: bool = False,
    impl: str = "auto",
) -> tuple[Inexact[Array, "B T D"], Inexact[Array, "B D"]]:
    """Linear scan over time, elementwise: ``h_t = a_t h_{t-1} + x_t``, ``y_t = h_t``.

    Args:
      a: decay factors (not their logarithms), ``[B, T, D]``, real or complex.
      x: inputs ``[B, T, D]``, real or complex. Where one of a and x is complex, so are all results; a gradient for a
        complex input is JAX's, the conjugate of what descends.
      initial_state: h_0, ``[B, D]``; zeros if None. It enters at the left, with ``reverse`` at the right.
      segment_ids: packed documents, ``[B, T]``; the state resets where the id changes (with ``reverse``: where it
        differs from the next one), a negative id is padding.
      reverse: run from the last token to the first, ``h_t = a_t h_{t+1} + x_t``.
      impl: ``"auto"``, ``"pallas_tpu"``, ``"pallas_gpu"``, ``"xla"`` or ``"reference"``.

    Returns:
      The states ``[B, T, D]`` in x's dtype (complex as said), and the state after the last token scanned, ``[B, D]``.

    Raises:
      ValueError: an argument has the wrong rank or width, or the named implementation cannot run it.

    Source: Martin & Cundy (2018), Parallelizing Linear Recurrent Neural Nets Over Sequence Length, arXiv 1709.04057.
    """
    prepared = prepare(a, x, initial_state=initial_state, segment_ids=segment_ids, reverse=reverse)
    return dispatch.call("linear_scan", impl, **prepared)
