"""Chunks of the recurrences whose writes depend on what the state holds: the delta rule and dplr.

    S_t = Diag(exp g_t) S_{t-1} + b_t u_t^T + k_t v_t^T        u_t = r_t - R_t^T a_t        o_t = S_t^T q_t

R_t is the state that the left factor a_t reads: S_{t-1}, or what the decay leaves of it. Inside a chunk the u of all
tokens solve one unit lower triangular system, after which they are written like any other values. They are linear in
the state that enters, ``u = u_0 - W S``, so that the system is solved for all chunks before a state is known.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .chunks import Links
from .decay import Decay, Undecayed
from .triangular import solve


def wy(
    decay: Decay,
    links: Links | None,
    S: Float[Array, "B H K V"],
    q: Float[Array, "B H N C K"],
    a: Float[Array, "B H N C K"],
    b: Float[Array, "B H N C K"],
    r: Float[Array, "B H N C V"] | None = None,
    kv: tuple[Float[Array, "B H N C K"], Float[Array, "B H N C V"]] | None = None,
    *,
    undecayed: bool,
) -> tuple[Float[Array, "B H K V"], Float[Array, "B H N C V"]]:
    """The state that leaves the last of N chunks, and the outputs of all.

    Args:
      decay: the chunks' decays.
      links: their segments.
      S: the state that enters the first.
      q: scaled queries.
      a: left factors.
      b: right factors.
      r: what u starts from; None: zeros.
      kv: keys and values that are written as they are; None: none.
      undecayed: whether ``a`` reads the state before its token's decay.
    """
    before = Undecayed(decay, links) if undecayed else decay
    left = jnp.stack([q, before.moved(a) if isinstance(before, Undecayed) else a], -3)

    right = b[..., None, :, :] if kv is None else jnp.stack([b, kv[0]], -3)
    scores = decay.scores(left, right)

    def of(factor):
        q_scores, a_scores = (scores[..., i, factor, :, :] for i in range(2))
        return q_scores, before.back(a_scores) if isinstance(before, Undecayed) else a_scores

    q_scores, a_scores = of(0)
    y, new = 0.0, None
    if kv is not None:
        k, v = kv
        qk_scores, ak_scores = of(1)
        y, new = qk_scores @ v, (decay.leave * k).swapaxes(-1, -2) @ v
        r = (0.0 if r is None else r) - ak_scores @ v
    assert r is not None, "nothing is ever written"
    solved = solve(a_scores, jnp.concatenate([r, before.enter * a], -1))
    u0, W = jnp.split(solved, [r.shape[-1]], -1)

    leaving = (decay.leave * b).swapaxes(-1, -2)
    entering, u = [], []
    for n in range(q.shape[2]):
        entering.append(S)
        u.append(u0[:, :, n] - W[:, :, n] @ S)
        S = decay.through[:, :, n] * S + leaving[:, :, n] @ u[-1]
        S = S if new is None else S + new[:, :, n]
    return S, y + q_scores @ jnp.stack(u, 2) + (decay.enter * q) @ jnp.stack(entering, 2)
