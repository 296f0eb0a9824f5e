"""One chunk of the recurrences whose writes depend on what the state holds: the delta rule and dplr.

    S_t = Diag(exp g_t) S_{t-1} + b_t u_t^T + k_t v_t^T        u_t = r_t - R_t^T a_t        o_t = S_t^T q_t

R_t is the state that the left factor a_t reads: S_{t-1}, or what the decay leaves of it. Inside a chunk the u of all
tokens solve one unit lower triangular system, after which they are written like any other values.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .chunks import Links
from .decay import ScalarDecay, VectorDecay
from .triangular import solve


def wy(
    decay: ScalarDecay | VectorDecay,
    links: Links | None,
    S: Float[Array, "B H K V"],
    q: Float[Array, "B H C K"],
    a: Float[Array, "B H C K"],
    b: Float[Array, "B H C K"],
    r: Float[Array, "B H C V"] | None = None,
    kv: tuple[Float[Array, "B H C K"], Float[Array, "B H C V"]] | None = None,
    *,
    undecayed: bool,
) -> tuple[Float[Array, "B H K V"], Float[Array, "B H C V"]]:
    """The state that leaves the chunk, and its outputs.

    Args:
      decay: the chunk's decays.
      links: its segments.
      S: the state that enters.
      q: scaled queries.
      a: left factors.
      b: right factors.
      r: what u starts from; None: zeros.
      kv: keys and values that are written as they are; None: none.
      undecayed: whether ``a`` reads the state before its token's decay.
    """
    if undecayed:
        entering = jnp.stack([decay.enter * q, _before(decay.enter, links) * a], 2)
        # What a_i reads has decayed up to the token before: there its row moves, and its scores move back.
        left = jnp.stack([q, _up(a)], 2)
    else:
        left = jnp.stack([q, a], 2)
        entering = decay.enter[:, :, None] * left
    q_read, a_read = jnp.moveaxis(entering @ S[:, :, None], 2, 0)

    def scores(right):
        q_scores, a_scores = jnp.moveaxis(decay.scores(left, right), 2, 0)
        return q_scores, _down(a_scores, links) if undecayed else a_scores

    q_scores, a_scores = scores(b)
    target = -a_read if r is None else r - a_read
    if kv is None:
        u = solve(a_scores, target)
        y = q_read + q_scores @ u
        return decay.through * S + (decay.leave * b).swapaxes(2, 3) @ u, y
    k, v = kv
    qk_scores, ak_scores = scores(k)
    u = solve(a_scores, target - ak_scores @ v)
    y = q_read + qk_scores @ v + q_scores @ u
    S = decay.through * S + (decay.leave * k).swapaxes(2, 3) @ v + (decay.leave * b).swapaxes(2, 3) @ u
    return S, y


def _up(x: Float[Array, "B H C K"]) -> Float[Array, "B H C K"]:
    return jnp.concatenate([x[:, :, 1:], jnp.zeros_like(x[:, :, :1])], 2)


def _down(scores: Float[Array, "B H C C"], links: Links | None) -> Float[Array, "B H C C"]:
    scores = jnp.concatenate([jnp.zeros_like(scores[:, :, :1]), scores[:, :, :-1]], 2)
    return scores if links is None else jnp.where(links.pair[:, None], scores, 0)


def _before(enter: Float[Array, "B H C K"], links: Links | None) -> Float[Array, "B H C K"]:
    """The decay from the state that enters the chunk to the token before i."""
    enter = jnp.concatenate([jnp.ones_like(enter[:, :, :1]), enter[:, :, :-1]], 2)
    return enter if links is None else jnp.where(links.enter[:, None, :, None], enter, 0)
