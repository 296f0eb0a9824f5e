"""Gated linear attention: one recurrence for linear attention, RetNet, Lightning, Mamba-2, GLA, HGRN2, GSA and RWKV-6.

    S_t = Diag(exp g_t) S_{t-1} + k_t v_t^T        o_t = S_t^T (scale q_t)

S is ``[K, V]`` per head. The gate g is absent (linear attention, arXiv 2006.16236), one constant per head (RetNet,
2307.08621), one scalar per token and head (Mamba-2, 2405.21060), or one value per token and key channel (GLA, Yang et
al. 2023, 2312.06635). Two variations:

    S_t = S_{t-1} Diag(exp gv_t) + k_t v_t^T               decay of the value axis (GSA, 2409.07146)
    o_t = (S_{t-1} + Diag(bonus) k_t v_t^T)^T (scale q_t)  read before the decay and the write (RWKV-6, 2404.05892)
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .. import checks, dispatch


def prepare(
    q, k, v, g=None, *, gv=None, bonus=None, scale=None, initial_state=None, segment_ids=None
) -> dict[str, Any]:
    """Checks the arguments of ``gla`` and fills its defaults."""
    sizes: dict[str, int] = {}
    checks.expect("gla", "v", v, "B T H V", sizes)
    checks.expect("gla", "q", q, "B T Hk K", sizes)
    checks.expect("gla", "k", k, "B T Hk K", sizes)
    checks.expect_groups("gla", sizes)
    if g is not None:
        axes = {1: "H", 3: "B T H", 4: "B T Hk|H K"}.get(g.ndim)
        if axes is None:
            raise ValueError(f"gla: g has shape {tuple(g.shape)}; expected None, [H], [B, T, H] or [B, T, H, K]")
        checks.expect("gla", "g", g, axes, sizes)
    if gv is not None:
        checks.expect("gla", "gv", gv, "B T H V", sizes)
        if g is not None or bonus is not None:
            raise ValueError(f"gla: gv excludes {'bonus' if g is None else 'g'}; give one of them")
    if bonus is not None:
        checks.expect("gla", "bonus", bonus, "H K", sizes)
    dtype = checks.state_dtype(q, k, v)
    state = [sizes[axis] for axis in "BHKV"]
    if initial_state is None:
        initial_state = jnp.zeros(state, dtype)
    checks.expect("gla", "initial_state", initial_state, "B H K V", sizes)
    if segment_ids is not None:
        checks.expect_ids("gla", segment_ids, sizes)
    return {
        "q": q, "k": k, "v": v, "g": g, "gv": gv, "bonus": bonus,
        "scale": sizes["K"] ** -0.5 if scale is None else scale,
        "initial_state": initial_state.astype(dtype), "segment_ids": segment_ids,
    }  # fmt: skip


def gla(
    q: Float[Array, "B T Hk K"],
    k: Float[Array, "B T Hk K"],
    v: Float[Array, "B T H V"],
    g: Float[Array, "..."] | None = None,
    *,
    gv: Float[Array, "B T H V"] | None = None,
    bonus: Float[Array, "H K"] | None = None,
    scale: float | Float[Array, ""] | None = None,
    initial_state: Float[Array, "B H K V"] | None = None,
    segment_ids: Int[Array, "B T"] | None = None,
    impl: str = "auto",
) -> tuple[Float[Array, "B T H V"], Float[Array, "B H K V"]]:
    """Gated linear attention: ``S_t = Diag(exp g_t) S_{t-1} + k_t v_t^T``, ``o_t = S_t^T (scale q_t)``.

    Args:
      q: queries ``[B, T, Hk, K]``.
      k: keys ``[B, T, Hk, K]``.
      v: values ``[B, T, H, V]``; value head j reads key head ``j // (H / Hk)``.
      g: natural-log decay, at most 0: None, ``[H]``, ``[B, T, H]``, or ``[B, T, H, K]`` (also ``[B, T, Hk, K]``).
      gv: natural-log decay of the value axis, at most 0, in place of g: ``S_t = S_{t-1} Diag(exp gv_t) + k_t v_t^T``.
      bonus: read before the decay and the write, with this weight on the token's own key:
        ``o_t = (S_{t-1} + Diag(bonus) k_t v_t^T)^T (scale q_t)``.
      scale: factor on q; None means ``K ** -0.5``.
      initial_state: S_0, ``[B, H, K, V]``; zeros if None.
      segment_ids: packed documents, ``[B, T]``; the state resets where the id changes, a negative id is padding.
      impl: ``"auto"``, ``"pallas_tpu"``, ``"pallas_gpu"``, ``"xla"`` or ``"reference"``.

    Returns:
      The outputs ``[B, T, H, V]`` in v's dtype, and the last segment's state ``[B, H, K, V]``.

    Raises:
      ValueError: an argument has the wrong rank or width, gv comes with g or bonus, or the named implementation cannot
        run this.

    Source: Yang, Wang, Shen, Panda & Kim (2023), Gated Linear Attention Transformers, arXiv 2312.06635.
    """
    prepared = prepare(
        q, k, v, g, gv=gv, bonus=bonus, scale=scale, initial_state=initial_state, segment_ids=segment_ids
    )
    return dispatch.call("gla", impl, **prepared)
