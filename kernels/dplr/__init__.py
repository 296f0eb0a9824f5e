"""Diagonal plus low rank: the linear recurrence of which the delta rule is a case, and RWKV-7 another.

    S_t = Diag(exp g_t) S_{t-1} + b_t (a_t^T S_{t-1}) + k_t v_t^T        o_t = S_t^T (scale q_t)

S is ``[K, V]`` per head. RWKV-7 (Peng et al. 2025, arXiv 2503.14456) has ``a = -kappa`` and ``b = kappa * rate``, kappa
a key of length 1; the delta rule has ``a = -exp(g) beta k`` and ``b = k``. Unlike it, a reads the state before decay.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .. import checks, dispatch


def prepare(q, k, v, a, b, g, *, scale: Any = 1.0, initial_state=None, segment_ids=None) -> dict[str, Any]:
    """Checks the arguments of ``dplr`` and fills its defaults."""
    sizes: dict[str, int] = {}
    checks.expect("dplr", "v", v, "B T H V", sizes)
    keyed = {"q": q, "k": k, "a": a, "b": b, "g": g}
    sizes["Hk"] = min((x.shape[2] for x in keyed.values() if x.ndim == 4), default=sizes["H"])
    checks.expect_groups("dplr", sizes)
    for name, x in keyed.items():
        checks.expect("dplr", name, x, "B T Hk|H K", sizes)
    dtype = checks.state_dtype(q, k, v)
    if initial_state is None:
        initial_state = jnp.zeros([sizes[axis] for axis in "BHKV"], dtype)
    checks.expect("dplr", "initial_state", initial_state, "B H K V", sizes)
    if segment_ids is not None:
        checks.expect_ids("dplr", segment_ids, sizes)
    return {**keyed, "v": v, "scale": scale, "initial_state": initial_state.astype(dtype), "segment_ids": segment_ids}


def dplr(
    q: Float[Array, "B T _ K"],
    k: Float[Array, "B T _ K"],
    v: Float[Array, "B T H V"],
    a: Float[Array, "B T _ K"],
    b: Float[Array, "B T _ K"],
    g: Float[Array, "B T _ K"],
    *,
    scale: float | Float[Array, ""] = 1.0,
    initial_state: Float[Array, "B H K V"] | None = None,
    segment_ids: Int[Array, "B T"] | None = None,
    impl: str = "auto",
) -> tuple[Float[Array, "B T H V"], Float[Array, "B H K V"]]:
    """Diagonal plus low rank: each token decays the state, moves what it holds along a to b, and adds a value.

    ``S_t = Diag(exp g_t) S_{t-1} + b_t (a_t^T S_{t-1}) + k_t v_t^T``, ``o_t = S_t^T (scale q_t)``.

    Args:
      q: queries ``[B, T, Hk, K]``, or of every value head: ``[B, T, H, K]``; so too k, a, b and g.
      k: keys; value head j reads key head ``j // (H / Hk)``.
      v: values ``[B, T, H, V]``.
      a: what is read from the state before its decay.
      b: where that is added; stable where a = -b of length at most sqrt(2), as in RWKV-7 and the delta rule.
      g: natural-log decay, at most 0.
      scale: factor on q.
      initial_state: S_0, ``[B, H, K, V]``; zeros if None.
      segment_ids: packed documents, ``[B, T]``; the state resets where the id changes, a negative id is padding.
      impl: ``"auto"``, ``"pallas_tpu"``, ``"pallas_gpu"``, ``"xla"`` or ``"reference"``.

    Returns:
      The outputs ``[B, T, H, V]`` in v's dtype, and the last segment's state ``[B, H, K, V]``.

    Raises:
      ValueError: an argument has the wrong rank or width, or the named implementation cannot run it.

    Source: Peng et al. (2025), RWKV-7 "Goose" with Expressive Dynamic State Evolution, arXiv 2503.14456.
    """
    prepared = prepare(q, k, v, a, b, g, scale=scale, initial_state=initial_state, segment_ids=segment_ids)
    return dispatch.call("dplr", impl, **prepared)
