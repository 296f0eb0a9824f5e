"""Chunk-parallel gated linear attention, any device."""

import jax
import jax.numpy as jnp
from einops import rearrange

from ..checks import state_dtype
from ..chunks import head_first, matmul_precision, scan_groups
from ..decay import Undecayed, decays, vector_decays


def unsupported(**_) -> str | None:
    """Everything runs."""
    return None


@jax.jit
def run(q, k, v, g, *, gv, bonus, scale, initial_state, segment_ids):
    """See ``gla``."""
    if g is not None and g.ndim == 1:
        g = jnp.broadcast_to(g, v.shape[:3])
    dtype = state_dtype(q, k, v)
    scale = jnp.asarray(scale, dtype)
    if gv is not None:
        return scan_groups(_value_chunks, scale, initial_state, (q, k, v, gv), segment_ids)
    if bonus is not None or (g is not None and g.ndim == 4):
        params = (scale, None if bonus is None else bonus.astype(dtype))
        return scan_groups(_key_chunks, params, initial_state, (q, k, v, g), segment_ids)
    # One gate a head scales values as well as keys: the value heads of a key head then share its products.
    state = rearrange(initial_state, "B (Hk R) K V -> B Hk K (R V)", Hk=q.shape[2])
    y, state = scan_groups(_scalar_chunks, scale, state, (q, k, v, g), segment_ids)
    return y, rearrange(state, "B Hk K (R V) -> B (Hk R) K V", V=v.shape[3])


def _key_chunks(params, S, x, links):
    """``o = (q k^T * decay) v + (decay q) S`` and ``S = decay S + (decay k)^T v``.

    With a bonus the decays of a read end at the token before, and the diagonal is ``q^T Diag(bonus) k``.
    """
    scale, bonus = params
    dtype = x[2].dtype
    q, k, v, g = head_first(x, S.shape[1], S.dtype, axis=3)
    with matmul_precision(dtype):
        decay = decays(g, k, links)
        q = scale * q
        S, entering = _pass_on(S, decay.through, (decay.leave * k).swapaxes(-1, -2) @ v)
        scores = lambda q: decay.scores(q[..., None, :, :], k[..., None, :, :])[..., 0, 0, :, :]  # noqa: E731
        if bonus is None:
            return S, (scores(q) @ v + (decay.enter * q) @ entering).astype(dtype)
        before = Undecayed(decay, links)
        own = jnp.sum(q * bonus[:, None, None] * k, axis=-1, keepdims=True)
        y = before.back(scores(before.moved(q))) @ v + own * v + (before.enter * q) @ entering
    return S, y.astype(dtype)


def _value_chunks(scale, S, x, links):
    """``o = sum_j (q k^T)_j decay_j v_j + decay (q S)`` and ``S = S decay + k^T (decay v)``: the decays on v's side."""
    dtype = x[2].dtype
    q, k, v, gv = head_first(x, S.shape[1], S.dtype, axis=3)
    with matmul_precision(dtype):
        decay = vector_decays(gv, links)
        q = scale * q
        through = decay.through.swapaxes(-1, -2)
        S, entering = _pass_on(S, through, k.swapaxes(-1, -2) @ (decay.leave * v))
        y = decay.weighted(q @ k.swapaxes(-1, -2), v) + decay.enter * (q @ entering)
    return S, y.astype(dtype)


def _scalar_chunks(scale, S, x, links):
    """``o = (q k^T * decay) v + decay (q S)`` and ``S = decay S + k^T (decay v)``; S is ``[B, Hk, K, R V]``."""
    q, k, v, g = x
    dtype, (Hk, R, V) = v.dtype, (q.shape[3], v.shape[3] // q.shape[3], v.shape[4])
    q, k = head_first((q, k), Hk, S.dtype, axis=3)
    v, g = head_first((v, g), v.shape[3], S.dtype, axis=3)
    heads = lambda a: a.reshape(a.shape[0], -1, R if a.shape[1] > 1 else 1, *a.shape[2:])  # noqa: E731
    with matmul_precision(dtype):
        decay = decays(g, v, links)
        within, enter, leave, through = map(heads, decay)
        merged = lambda a: jnp.moveaxis(a, 2, -2).reshape(*k.shape[:-1], R * V)  # noqa: E731
        per_head = jnp.broadcast_to(jnp.moveaxis(through, 2, -2), (*through.shape[:2], k.shape[2], 1, R, V))
        v = heads(v)
        new = k.swapaxes(-1, -2) @ merged(leave * v)
        S, entering = _pass_on(S, per_head.reshape(*per_head.shape[:-2], R * V), new)
        q = scale * q
        read = q @ entering
        read = jnp.moveaxis(read.reshape(*read.shape[:-1], R, V), -2, 2)
        y = ((q @ k.swapaxes(-1, -2))[:, :, None] * within) @ v + enter * read
    return S, y.reshape(y.shape[0], Hk * R, *y.shape[3:]).astype(dtype)


def _pass_on(S, through, new):
    """``S = through S + new`` over the chunks: the last S, and those that enter each."""
    entering = []
    for n in range(new.shape[2]):
        entering.append(S)
        S = through[:, :, n] * S + new[:, :, n]
    return S, jnp.stack(entering, 2)
