"""sLSTM: the scalar memory of xLSTM, an LSTM with an exponential input gate, a normaliser and memory mixing in heads.

    (i, f, z, o)_t = gates_t + R h_{t-1}        per head, each of the four with its own matrix
    m_t = max(log sigmoid(f_t) + m_{t-1}, i_t)
    c_t = exp(log sigmoid(f_t) + m_{t-1} - m_t) c_{t-1} + exp(i_t - m_t) tanh(z_t)
    n_t = exp(log sigmoid(f_t) + m_{t-1} - m_t) n_{t-1} + exp(i_t - m_t)
    h_t = sigmoid(o_t) c_t / n_t

Where n is still 0 there is nothing to forget: ``m_t = i_t``, and c and n get no gradient. What is remembered is
``exp(m) c`` and ``exp(m) n``: m only keeps the numbers in range, and has no gradient.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .. import checks, dispatch


class SLSTMState(NamedTuple):
    """Memory, normaliser, hidden state, and the logarithm of the unit in which the first two are kept."""

    c: Float[Array, "B H D"]
    n: Float[Array, "B H D"]
    h: Float[Array, "B H D"]
    m: Float[Array, "B H D"]


State = tuple[Float[Array, "B H D"], Float[Array, "B H D"], Float[Array, "B H D"], Float[Array, "B H D"]]


def prepare(gates, r, *, initial_state=None, segment_ids=None) -> dict[str, Any]:
    """Checks the arguments of ``slstm`` and fills its defaults."""
    sizes: dict[str, int] = {"4": 4}
    checks.expect("slstm", "gates", gates, "B T H 4 D", sizes)
    checks.expect("slstm", "r", r, "H 4 D D", sizes)
    dtype = checks.state_dtype(gates, r)
    if initial_state is None:
        initial_state = (jnp.zeros([sizes[axis] for axis in "BHD"], dtype),) * 4
    for name, part in zip("cnhm", initial_state, strict=True):
        checks.expect("slstm", f"initial_state {name}", part, "B H D", sizes)
    if segment_ids is not None:
        checks.expect_ids("slstm", segment_ids, sizes)
    c, n, h, m = (part.astype(dtype) for part in initial_state)
    state = SLSTMState(c, n, h, jax.lax.stop_gradient(m))
    return {"gates": gates, "r": r, "initial_state": state, "segment_ids": segment_ids}


def slstm(
    gates: Float[Array, "B T H 4 D"],
    r: Float[Array, "H 4 D D"],
    *,
    initial_state: State | None = None,
    segment_ids: Int[Array, "B T"] | None = None,
    impl: str = "auto",
) -> tuple[Float[Array, "B T H D"], State]:
    """sLSTM: exponential gating on a memory whose gates read the hidden state of their head.

    In ``i, f, z, o = gates_t + R h_{t-1}``: ``C_t = sigmoid(f) C_{t-1} + exp(i) tanh(z)``,
    ``N_t = sigmoid(f) N_{t-1} + exp(i)``, ``h_t = sigmoid(o) C_t / N_t``, with ``C = exp(m) c`` and ``N = exp(m) n``.

    Args:
      gates: pre-activations by the input, ``[B, T, H, 4, D]``, in the order i, f, z, o.
      r: recurrent matrices ``[H, 4, D, D]``, the last axes being (out, in).
      initial_state: ``(c, n, h, m)``, see Returns; zeros if None.
      segment_ids: packed documents, ``[B, T]``; the state resets where the id changes, a negative id is padding.
      impl: ``"auto"``, ``"pallas_tpu"``, ``"pallas_gpu"``, ``"xla"`` or ``"reference"``.

    Returns:
      The hidden states ``[B, T, H, D]`` in the dtype of ``gates``, and the last segment's ``(c, n, h, m)``, each
      ``[B, H, D]``. m takes no gradient and gives none.

    Raises:
      ValueError: an argument has the wrong rank or width, or the named implementation cannot run it.

    Source: Beck et al. (2024), xLSTM, arXiv 2405.04517.
    """
    prepared = prepare(gates, r, initial_state=initial_state, segment_ids=segment_ids)
    return dispatch.call("slstm", impl, **prepared)
