"""mLSTM: the matrix memory of xLSTM, gated linear attention with an exponential input gate and a normaliser.

    m_t = max(log sigmoid(f_t) + m_{t-1}, i_t)
    C_t = exp(log sigmoid(f_t) + m_{t-1} - m_t) C_{t-1} + exp(i_t - m_t) k_t v_t^T
    n_t = exp(log sigmoid(f_t) + m_{t-1} - m_t) n_{t-1} + exp(i_t - m_t) k_t
    h_t = C_t^T (scale q_t) / max(|n_t . (scale q_t)|, exp(-m_t))

C is ``[K, V]`` and n ``[K]`` per head. What is remembered is ``exp(m) C`` and ``exp(m) n``: m only keeps the numbers in
range. Implementations may choose it otherwise; it has no gradient.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .. import checks, dispatch

State = tuple[Float[Array, "B H K V"], Float[Array, "B H K"], Float[Array, "B H"]]


def prepare(q, k, v, i, f, *, scale=None, initial_state=None, segment_ids=None) -> dict[str, Any]:
    """Checks the arguments of ``mlstm`` and fills its defaults."""
    sizes: dict[str, int] = {}
    checks.expect("mlstm", "v", v, "B T H V", sizes)
    checks.expect("mlstm", "q", q, "B T Hk K", sizes)
    checks.expect("mlstm", "k", k, "B T Hk K", sizes)
    checks.expect_groups("mlstm", sizes)
    checks.expect("mlstm", "i", i, "B T H", sizes)
    checks.expect("mlstm", "f", f, "B T H", sizes)
    dtype, axes = checks.state_dtype(q, k, v), ("B H K V", "B H K", "B H")
    if initial_state is None:
        initial_state = tuple(jnp.zeros([sizes[axis] for axis in names.split()], dtype) for names in axes)
    for name, part, names in zip("Cnm", initial_state, axes, strict=True):
        checks.expect("mlstm", f"initial_state {name}", part, names, sizes)
    if segment_ids is not None:
        checks.expect_ids("mlstm", segment_ids, sizes)
    C, n, m = (part.astype(dtype) for part in initial_state)
    return {
        "q": q, "k": k, "v": v, "i": i, "f": f,
        "scale": sizes["K"] ** -0.5 if scale is None else scale,
        "initial_state": (C, n, jax.lax.stop_gradient(m)), "segment_ids": segment_ids,
    }  # fmt: skip


def mlstm(
    q: Float[Array, "B T Hk K"],
    k: Float[Array, "B T Hk K"],
    v: Float[Array, "B T H V"],
    i: Float[Array, "B T H"],
    f: Float[Array, "B T H"],
    *,
    scale: float | Float[Array, ""] | None = None,
    initial_state: State | None = None,
    segment_ids: Int[Array, "B T"] | None = None,
    impl: str = "auto",
) -> tuple[Float[Array, "B T H V"], State]:
    """mLSTM: a matrix memory with exponential input gates, ``exp(i)``, and sigmoid forget gates.

    With ``S = exp(m) C`` and ``z = exp(m) n``: ``S_t = sigmoid(f_t) S_{t-1} + exp(i_t) k_t v_t^T``,
    ``z_t = sigmoid(f_t) z_{t-1} + exp(i_t) k_t``, ``h_t = S_t^T (scale q_t) / max(|z_t . (scale q_t)|, 1)``.

    Args:
      q: queries ``[B, T, Hk, K]``.
      k: keys ``[B, T, Hk, K]``.
      v: values ``[B, T, H, V]``; value head j reads key head ``j // (H / Hk)``.
      i: pre-activations of the input gate, ``[B, T, H]``: the logarithm of the gate.
      f: pre-activations of the forget gate, ``[B, T, H]``, which is their sigmoid.
      scale: factor on q; None means ``K ** -0.5``.
      initial_state: ``(C, n, m)``, see Returns; zeros if None.
      segment_ids: packed documents, ``[B, T]``; the state resets where the id changes, a negative id is padding.
      impl: ``"auto"``, ``"pallas_tpu"``, ``"pallas_gpu"``, ``"xla"`` or ``"reference"``.

    Returns:
      The outputs ``[B, T, H, V]`` in v's dtype, and the last segment's state: C ``[B, H, K, V]``, n ``[B, H, K]`` and m
      ``[B, H]``. m takes no gradient and gives none.

    Raises:
      ValueError: an argument has the wrong rank or width, or the named implementation cannot run it.

    Source: Beck et al. (2024), xLSTM, arXiv 2405.04517.
    """
    prepared = prepare(q, k, v, i, f, scale=scale, initial_state=initial_state, segment_ids=segment_ids)
    return dispatch.call("mlstm", impl, **prepared)
