"""What the kernels of gla have in common before they are launched, on whatever device."""

from collections.abc import Callable

import jax.numpy as jnp

from ..heads import repeat_heads
from ..segments import segments

OUTPUTS = ("B T H V", "B H K V")


def axes(q, v, g, **_) -> dict[str, str]:
    """The axes of the arrays."""
    gates = {1: "H", 3: "B T H", 4: "B T H K" if g is not None and g.shape[2:3] == v.shape[2:3] else "B T Hk K"}
    named = {"q": "B T Hk K", "k": "B T Hk K", "v": "B T H V", "bonus": "H K"}
    named |= {"initial_state": "B H K V", "segment_ids": "B T"}
    return named if g is None else named | {"g": gates[g.ndim]}


def run(kernels: Callable, q, k, v, g, *, gv, bonus, scale, initial_state, segment_ids):
    """``gla`` by ``kernels(q, k, v, g, scale, initial_state, number)``.

    There q, k and v have one dtype; g is float32 with a gate for each value head, and for each channel if g had one;
    scale is a positive float. Padding is zero everywhere. ``number`` counts the segments, or is None.
    """
    (B, T, H, _), low = v.shape, jnp.result_type(q, k, v)
    if g is None or g.ndim < 4:
        g = jnp.zeros((B, T, H), jnp.float32) if g is None else jnp.broadcast_to(g, v.shape[:3])
    else:
        g = repeat_heads(g, H)
    if not isinstance(scale, float | int) or scale <= 0:  # the kernels take its logarithm
        q, scale = (q * scale).astype(low), 1.0
    q, k, v, g = q.astype(low), k.astype(low), v.astype(low), g.astype(jnp.float32)
    number = None
    if segment_ids is not None:
        number, valid = cut = segments(segment_ids)
        q, k, v, g = (jnp.where(valid.reshape(B, T, *[1] * (x.ndim - 2)), x, 0) for x in (q, k, v, g))
        if bonus is not None:
            own_q = q
            q = jnp.where(cut.first[..., None, None], 0, q)
    if bonus is None:
        return kernels(q, k, v, g, float(scale), initial_state, number)
    # To read before the decay and the write of a token is to read after those of the token before.
    own_q = q if segment_ids is None else own_q
    shift = lambda x: jnp.pad(x, ((0, 0), (1, 0), *[(0, 0)] * (x.ndim - 2)))  # noqa: E731
    late_q = jnp.pad(q, ((0, 0), (0, 1), (0, 0), (0, 0)))
    late = None if number is None else shift(number)
    y, last = kernels(late_q, shift(k), shift(v), shift(g), float(scale), initial_state, late)
    own = [repeat_heads(x, H).astype(jnp.float32) for x in (own_q, k)]
    weight = scale * jnp.sum(own[0] * bonus * own[1], -1, keepdims=True)
    return (y[:, :T] + weight * v).astype(v.dtype), last
