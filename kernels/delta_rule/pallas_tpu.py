"""The delta rule on TPUs: see ``tpu.wy_grid``."""

import jax.numpy as jnp

from ..tpu import wy_grid
from ..tpu.decay import Heads, each
from ..tpu.wy import Factors
from .arguments import OUTPUTS, axes

__all__ = ["OUTPUTS", "axes", "run", "unsupported"]

HEADS = 8
"""The most heads of a grid step."""


def unsupported(q, k, v, **_) -> str | None:
    """Why these arguments do not run here, in words."""
    return wy_grid.unsupported(q, k, v)


def run(q, k, v, beta, g, *, erase_key, read, scale, initial_state, segment_ids):
    """See ``delta_rule``."""
    if not isinstance(scale, float):
        q, scale = (q * jnp.asarray(scale, jnp.float32)).astype(q.dtype), 1.0
    tokens, columns = {"q": q, "k": k, "v": v}, {}
    if isinstance(beta, tuple):
        tokens["erase"], tokens["write"] = (x.astype(jnp.float32) for x in beta)
    else:
        columns["beta"] = beta
    if erase_key is not None:
        tokens["erase_key"] = erase_key
    if g is not None and g.ndim == 4:
        tokens["g"] = g.astype(jnp.float32)
    else:
        columns["g"] = jnp.zeros(v.shape[:3]) if g is None else g
    columns = {name: x.astype(jnp.float32) for name, x in columns.items()}
    op = wy_grid.Op("delta_rule", _Arguments, read == "undecayed", HEADS)
    return wy_grid.run(op, tokens, columns, initial_state, segment_ids, scale=scale)


class _Arguments(wy_grid.Arguments):
    def __init__(self, x: dict[str, Heads]):
        super().__init__(x)
        self.low = x["k"][0].dtype
        self.p, self.e, self.w = x.get("erase_key", x["k"]), x.get("erase") or x["beta"], x.get("write") or x["beta"]

    def factors(self) -> Factors:
        """The delta rule writes ``w v - R^T (e p)`` under k."""
        a = each(lambda e, p: (e * p.astype(jnp.float32)).astype(self.low), self.e, self.p)
        r = each(lambda w, v: w * v.astype(jnp.float32), self.w, self.x["v"])
        return Factors(self.x["q"], a, self.x["k"], r, None)

    def cotangents(self, d: Factors) -> dict[str, Heads]:
        """Of every argument but the gate, from those of the factors."""
        assert d.r is not None
        dp = each(jnp.multiply, self.e, d.a)
        de = each(lambda p, da: p.astype(jnp.float32) * da, self.p, d.a)
        dw = each(lambda v, dr: v.astype(jnp.float32) * dr, self.x["v"], d.r)
        found = {"q": d.q, "k": d.b, "v": each(jnp.multiply, self.w, d.r), "erase": de, "write": dw}
        if "erase_key" in self.x:
            found["erase_key"] = dp
        else:
            found["k"] = each(jnp.add, d.b, dp)
        if "beta" in self.x:
            rows = lambda x: jnp.sum(x, 1, keepdims=True)  # noqa: E731
            found["beta"] = each(lambda de, dw: rows(de) + rows(dw), de, dw)
        return found
