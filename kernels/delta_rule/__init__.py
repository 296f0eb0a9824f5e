"""The delta rule: one recurrence for DeltaNet, Gated DeltaNet 1 and 2, Kimi Delta Attention, Comba and DeltaProduct.

    S' = Diag(exp g_t) S_{t-1}    S_t = S' + k_t (w_t * v_t - S'^T (e_t * p_t))^T    o_t = S_t^T (scale q_t)

S is ``[K, V]`` per head. The gate g is absent (DeltaNet, Yang et al. 2024, arXiv 2406.06484), one scalar per token and
head (Gated DeltaNet, Yang et al. 2024, 2412.06464), or one value per token and key channel (Kimi Delta Attention, Kimi
Team 2025, 2510.26692). Erase e and write w are one scalar beta, or one gate per channel each (Gated DeltaNet-2,
2605.22791). The erase key p is k, or a key of its own, which may read S_{t-1} in place of S' (Comba, Hu et al. 2025,
2506.02475).
"""

from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .. import checks, dispatch


def prepare(
    q, k, v, beta, g=None, *, erase_key=None, read="decayed", scale=None, initial_state=None, segment_ids=None
) -> dict[str, Any]:
    """Checks the arguments of ``delta_rule`` and fills its defaults."""
    sizes: dict[str, int] = {}
    checks.expect("delta_rule", "v", v, "B T H V", sizes)
    checks.expect("delta_rule", "q", q, "B T Hk K", sizes)
    checks.expect("delta_rule", "k", k, "B T Hk K", sizes)
    checks.expect_groups("delta_rule", sizes)
    if isinstance(beta, tuple | list):
        beta = erase, write = tuple(beta)
        checks.expect("delta_rule", "beta's erase", erase, "B T Hk|H K", sizes)
        checks.expect("delta_rule", "beta's write", write, "B T H V", sizes)
    else:
        checks.expect("delta_rule", "beta", beta, "B T H", sizes)
    if erase_key is not None:
        checks.expect("delta_rule", "erase_key", erase_key, "B T Hk|H K", sizes)
    if read not in ("decayed", "undecayed"):
        raise ValueError(f"delta_rule: read={read!r}; choose from 'decayed', 'undecayed'")
    if g is not None:
        axes = {3: "B T H", 4: "B T Hk|H K"}.get(g.ndim)
        if axes is None:
            raise ValueError(f"delta_rule: g has shape {tuple(g.shape)}; expected None, [B, T, H] or [B, T, H, K]")
        checks.expect("delta_rule", "g", g, axes, sizes)
    dtype = checks.state_dtype(q, k, v)
    state = [sizes[axis] for axis in "BHKV"]
    if initial_state is None:
        initial_state = jnp.zeros(state, dtype)
    checks.expect("delta_rule", "initial_state", initial_state, "B H K V", sizes)
    if segment_ids is not None:
        checks.expect_ids("delta_rule", segment_ids, sizes)
    return {
        "q": q, "k": k, "v": v, "beta": beta, "g": g, "erase_key": erase_key, "read": read,
        "scale": sizes["K"] ** -0.5 if scale is None else scale,
        "initial_state": initial_state.astype(dtype), "segment_ids": segment_ids,
    }  # fmt: skip


def delta_rule(
    q: Float[Array, "B T Hk K"],
    k: Float[Array, "B T Hk K"],
    v: Float[Array, "B T H V"],
    beta: Float[Array, "B T H"] | tuple[Float[Array, "B T _ K"], Float[Array, "B T H V"]],
    g: Float[Array, "..."] | None = None,
    *,
    erase_key: Float[Array, "B T _ K"] | None = None,
    read: Literal["decayed", "undecayed"] = "decayed",
    scale: float | Float[Array, ""] | None = None,
    initial_state: Float[Array, "B H K V"] | None = None,
    segment_ids: Int[Array, "B T"] | None = None,
    impl: str = "auto",
) -> tuple[Float[Array, "B T H V"], Float[Array, "B H K V"]]:
    """The delta rule: write what the state does not yet answer.

    ``S' = Diag(exp g_t) S_{t-1}``, ``S_t = S' + k_t (w_t * v_t - S'^T (e_t * p_t))^T``, ``o_t = S_t^T (scale q_t)``.

    Args:
      q: queries ``[B, T, Hk, K]``.
      k: keys ``[B, T, Hk, K]``, of Euclidean length at most 1 where the recurrence is to be stable.
      v: values ``[B, T, H, V]``; value head j reads key head ``j // (H / Hk)``.
      beta: how much of the old value is replaced, ``[B, T, H]``, in (0, 2): both e and w. Or the pair of them: erase
        ``[B, T, H, K]`` (also ``[B, T, Hk, K]``) and write ``[B, T, H, V]``.
      g: natural-log decay, at most 0: None, ``[B, T, H]``, or ``[B, T, H, K]`` (also ``[B, T, Hk, K]``).
      erase_key: p, what is asked of the state, ``[B, T, H, K]`` or ``[B, T, Hk, K]``; None: k.
      read: whether that asks the state after its decay, S', or before: ``"undecayed"`` puts S_{t-1} in its place.
      scale: factor on q; None means ``K ** -0.5``.
      initial_state: S_0, ``[B, H, K, V]``; zeros if None.
      segment_ids: packed documents, ``[B, T]``; the state resets where the id changes, a negative id is padding.
      impl: ``"auto"``, ``"pallas_tpu"``, ``"pallas_gpu"``, ``"xla"`` or ``"reference"``.

    Returns:
      The outputs ``[B, T, H, V]`` in v's dtype, and the last segment's state ``[B, H, K, V]``.

    Raises:
      ValueError: an argument has the wrong rank or width, or the named implementation cannot run it.

    Source: Yang, Kautz & Hatamizadeh (2024), Gated Delta Networks, arXiv 2412.06464.
    """
    prepared = prepare(
        q, k, v, beta, g,
        erase_key=erase_key, read=read, scale=scale, initial_state=initial_state, segment_ids=segment_ids,
    )  # fmt: skip
    return dispatch.call("delta_rule", impl, **prepared)
