"""Log-linear attention: gated linear attention that weighs what it reads by how far back, in powers of two, it stood.

    o_t = sum_{j <= t} w_t[level(t, j)] exp(g_{j+1} + ... + g_t) (scale q_t . k_j) v_j
    level(t, j) = the number of binary digits of t xor j, at most L - 1

so that level 0 is the token itself, level 1 its other half of a pair, level 2 the pair before that, and so on: the
blocks of a Fenwick tree. t and j count the tokens of their segment from 0. One state is kept for each level from 1 on.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from .. import checks, dispatch
from ..segments import segments

State = tuple[Float[Array, "B H L1 K V"], Float[Array, " B"]]
"""The states of levels 1 to L - 1, and how many tokens the segment had (a float, as states are; without gradient)."""


def prepare(q, k, v, g, weights, *, scale=None, initial_state=None, segment_ids=None) -> dict[str, Any]:
    """Checks the arguments of ``log_linear`` and fills its defaults."""
    sizes: dict[str, int] = {}
    checks.expect("log_linear", "v", v, "B T H V", sizes)
    checks.expect("log_linear", "q", q, "B T Hk K", sizes)
    checks.expect("log_linear", "k", k, "B T Hk K", sizes)
    checks.expect_groups("log_linear", sizes)
    checks.expect("log_linear", "g", g, "B T H", sizes)
    checks.expect("log_linear", "weights", weights, "B T H L", sizes)
    if sizes["L"] < 2:
        raise ValueError(f"log_linear: weights has shape {tuple(weights.shape)}; expected [B, T, H, L] with L >= 2")
    B, dtype, sizes["L-1"] = sizes["B"], checks.state_dtype(q, k, v), sizes["L"] - 1
    if initial_state is None:
        states = jnp.zeros([sizes[axis] for axis in ("B", "H", "L-1", "K", "V")], dtype)
        initial_state = states, jnp.zeros(B, dtype)
    for i, axes in enumerate(("B H L-1 K V", "B")):
        checks.expect("log_linear", f"initial_state[{i}]", initial_state[i], axes, sizes)
    if segment_ids is not None:
        checks.expect_ids("log_linear", segment_ids, sizes)
    states, count = (part.astype(dtype) for part in initial_state)
    return {
        "q": q, "k": k, "v": v, "g": g, "weights": weights, "scale": sizes["K"] ** -0.5 if scale is None else scale,
        "initial_state": (states, lax.stop_gradient(count)), "segment_ids": segment_ids,
    }  # fmt: skip


def log_linear(
    q: Float[Array, "B T Hk K"],
    k: Float[Array, "B T Hk K"],
    v: Float[Array, "B T H V"],
    g: Float[Array, "B T H"],
    weights: Float[Array, "B T H L"],
    *,
    scale: float | Float[Array, ""] | None = None,
    initial_state: State | None = None,
    segment_ids: Int[Array, "B T"] | None = None,
    impl: str = "auto",
) -> tuple[Float[Array, "B T H V"], State]:
    """Log-linear attention with one decay per token and head; see the equations above.

    Args:
      q: queries ``[B, T, Hk, K]``.
      k: keys ``[B, T, Hk, K]``.
      v: values ``[B, T, H, V]``; value head j reads key head ``j // (H / Hk)``.
      g: natural-log decay, at most 0, ``[B, T, H]``.
      weights: what each token gives to each level, ``[B, T, H, L]``.
      scale: factor on q; None means ``K ** -0.5``.
      initial_state: the states of levels 1 on, ``[B, H, L-1, K, V]``, and the tokens before, ``[B]``; zeros if None.
      segment_ids: packed documents, ``[B, T]``; states and count start anew where the id changes, a negative id is
        padding.
      impl: ``"auto"``, ``"xla"`` or ``"reference"``.

    Returns:
      The outputs ``[B, T, H, V]`` in v's dtype, and the last segment's state.

    Raises:
      ValueError: an argument has the wrong rank or width, or the named implementation cannot run it.

    Source: Guo, Yang, Goel, Xing, Dao & Kim (2025), Log-Linear Attention, arXiv 2506.04761.
    """
    prepared = prepare(q, k, v, g, weights, scale=scale, initial_state=initial_state, segment_ids=segment_ids)
    return dispatch.call("log_linear", impl, **prepared)


def digits(x: Int[Array, "*n"]) -> Int[Array, "*n"]:
    """How many binary digits a number has; 0 has none."""
    return 32 - lax.clz(x.astype(jnp.int32))


def positions(first: Float[Array, " B"], T: int, segment_ids: Int[Array, "B T"] | None) -> Int[Array, "B T"]:
    """Each token's number in its segment, from 0 (that of the first one from ``first``); -1 for padding."""
    first = first.astype(jnp.int32)[:, None]
    if segment_ids is None:
        return first + jnp.arange(T)
    number, valid = segments(segment_ids)
    seen = jnp.cumsum(valid, axis=1) - 1
    starts = jnp.diff(number, axis=1, prepend=0) > 0
    since = seen - lax.cummax(jnp.where(starts, seen, 0), axis=1)
    return jnp.where(valid, jnp.where(number == 0, first, 0) + since, -1)
