"""dplr on TPUs: see ``tpu.wy_grid``."""

import jax.numpy as jnp

from ..tpu import wy_grid
from ..tpu.decay import Heads, each
from ..tpu.wy import Factors
from .arguments import OUTPUTS, axes

__all__ = ["OUTPUTS", "axes", "run", "unsupported"]

HEADS = 8
"""The most heads of a grid step."""


def unsupported(q, k, v, a, b, **_) -> str | None:
    """Why these arguments do not run here, in words."""
    return wy_grid.unsupported(q, k, v, a, b)


def run(q, k, v, a, b, g, *, scale, initial_state, segment_ids):
    """See ``dplr``."""
    if not isinstance(scale, float):
        q, scale = (q * jnp.asarray(scale, jnp.float32)).astype(q.dtype), 1.0
    tokens = {"q": q, "k": k, "v": v, "a": a, "b": b, "g": g.astype(jnp.float32)}
    op = wy_grid.Op("dplr", _Arguments, True, HEADS)
    return wy_grid.run(op, tokens, {}, initial_state, segment_ids, scale=scale)


class _Arguments(wy_grid.Arguments):
    def factors(self) -> Factors:
        """What u has is what the state holds at a, in place of what it lacks there."""
        x = self.x
        a = each(lambda a: (-a.astype(jnp.float32)).astype(a.dtype), x["a"])
        return Factors(x["q"], a, x["b"], None, (x["k"], x["v"]))

    def cotangents(self, d: Factors) -> dict[str, Heads]:
        """Of every argument but the gate, from those of the factors."""
        assert d.kv is not None
        dk, dv = d.kv
        return {"q": d.q, "k": dk, "v": dv, "a": each(jnp.negative, d.a), "b": d.b}
