"""TTT-Linear: a linear map that takes one gradient step per block of tokens, on its error at naming v - k from k.

With W = W_0 + dW and c = c_0 + dc, per head, and M tokens to a block, of which p is the token's own number from 0:

    u_t = eta_t dL_t/dz   at z = k_t W + c,   L_t = ||LN(z) - (v_t - k_t)||^2 / 2
    G_t = G_{t-1} + k_t u_t^T        e_t = e_{t-1} + u_t
    o_t = q_t + LN(q_t (W - s_p G_t) + c - s_p e_t)

All gradients of a block are taken at the W it starts with. Before the first token of the next one (p = 0)
``dW <- dW - s_{M-1} G, dc <- dc - s_{M-1} e, G, e <- 0``. LN is layer normalisation with scale and bias per head.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from .. import checks, dispatch
from ..segments import segments

State = tuple[
    Float[Array, "B H K K"], Float[Array, "B H K"], Float[Array, "B H K K"], Float[Array, "B H K"], Float[Array, " B"]
]
"""dW, dc, G, e, and p of the next token (a float, as states are; without gradient)."""


def prepare(q, k, v, eta, schedule, W0, c0, scale, bias, *, initial_state=None, segment_ids=None) -> dict[str, Any]:
    """Checks the arguments of ``ttt_linear`` and fills its defaults."""
    sizes: dict[str, int] = {}
    names = {"q": q, "k": k, "v": v, "eta": eta, "schedule": schedule, "W0": W0, "c0": c0, "scale": scale, "bias": bias}
    axes = ["B T H K"] * 3 + ["B T H", "M", "H K K"] + ["H K"] * 3
    for (name, array), expected in zip(names.items(), axes, strict=True):
        checks.expect("ttt_linear", name, array, expected, sizes)
    B, H, K, dtype = sizes["B"], sizes["H"], sizes["K"], checks.state_dtype(q, k, v)
    if initial_state is None:
        matrix, vector = jnp.zeros((B, H, K, K), dtype), jnp.zeros((B, H, K), dtype)
        initial_state = matrix, vector, matrix, vector, jnp.zeros(B, dtype)
    for i, expected in enumerate(("B H K K", "B H K", "B H K K", "B H K", "B")):
        checks.expect("ttt_linear", f"initial_state[{i}]", initial_state[i], expected, sizes)
    if segment_ids is not None:
        checks.expect_ids("ttt_linear", segment_ids, sizes)
    params = {name: names[name].astype(dtype) for name in ("schedule", "W0", "c0", "scale", "bias")}
    *state, place = (part.astype(dtype) for part in initial_state)
    state = (*state, lax.stop_gradient(place))
    return {"q": q, "k": k, "v": v, "eta": eta, **params, "initial_state": state, "segment_ids": segment_ids}


def ttt_linear(
    q: Float[Array, "B T H K"],
    k: Float[Array, "B T H K"],
    v: Float[Array, "B T H K"],
    eta: Float[Array, "B T H"],
    schedule: Float[Array, " M"],
    W0: Float[Array, "H K K"],
    c0: Float[Array, "H K"],
    scale: Float[Array, "H K"],
    bias: Float[Array, "H K"],
    *,
    initial_state: State | None = None,
    segment_ids: Int[Array, "B T"] | None = None,
    impl: str = "auto",
) -> tuple[Float[Array, "B T H K"], State]:
    """TTT-Linear in blocks of M tokens; see the equations above.

    Args:
      q: queries ``[B, T, H, K]``.
      k: keys ``[B, T, H, K]``.
      v: values ``[B, T, H, K]``.
      eta: the step size of each token, ``[B, T, H]``.
      schedule: s, the factor of each place in a block, ``[M]``.
      W0: where the map starts in each segment, ``[H, K, K]``.
      c0: its bias there, ``[H, K]``.
      scale: of the layer normalisation, ``[H, K]``.
      bias: of the layer normalisation, ``[H, K]``.
      initial_state: dW, dc, G, e and the place in the block of the first token; zeros if None.
      segment_ids: packed documents, ``[B, T]``; map and block start anew where the id changes, a negative id is
        padding.
      impl: ``"auto"``, ``"xla"`` or ``"reference"``.

    Returns:
      The outputs ``[B, T, H, K]`` in v's dtype, and the last segment's state.

    Raises:
      ValueError: an argument has the wrong rank or width, or the named implementation cannot run it.

    Source: Sun et al. (2024), Learning to (Learn at Test Time), arXiv 2407.04620; github.com/test-time-training.
    """
    arrays = q, k, v, eta, schedule, W0, c0, scale, bias
    prepared = prepare(*arrays, initial_state=initial_state, segment_ids=segment_ids)
    return dispatch.call("ttt_linear", impl, **prepared)


def places(
    first: Float[Array, " B"], T: int, M: int, segment_ids: Int[Array, "B T"] | None
) -> tuple[Float[Array, "B T"], Float[Array, " B"]]:
    """Each token's place in its block, from 0, and that of the next one, given that of the first token.

    Padding has no place: what stands there means nothing.
    """
    if segment_ids is None:
        place = first[:, None] + jnp.arange(T)
        return place % M, (first + T) % M
    number, valid = segments(segment_ids)
    seen = jnp.cumsum(valid, axis=1) - 1
    starts = jnp.diff(number, axis=1, prepend=0) > 0
    since = seen - jnp.maximum.accumulate(jnp.where(starts, seen, 0), axis=1)
    place = jnp.where(number == 0, first[:, None], 0) + since
    return place % M, (place[:, -1] + 1) % M
