"""The delta rule on TPUs: see ``wy_grid_tpu``."""

from typing import Any

import jax.numpy as jnp

from .. import wy_grid_tpu
from ..decay_tpu import Heads, each
from ..wy_tpu import Factors

HEADS = 8
"""The most heads of a grid step."""


def unsupported(q, k, v, **_) -> str | None:
    """Why these arguments do not run here, in words."""
    return wy_grid_tpu.unsupported(q, k, v)


OUTPUTS = ("B T H V", "B H K V")


def axes(v, beta, g, *, erase_key, **_) -> dict[str, Any]:
    """The axes of the arrays."""
    of_heads = lambda x: "B T H K" if x.shape[2] == v.shape[2] else "B T Hk K"  # noqa: E731
    found: dict[str, Any] = {"q": "B T Hk K", "k": "B T Hk K", "v": "B T H V"}
    found["beta"] = (of_heads(beta[0]), "B T H V") if isinstance(beta, tuple) else "B T H"
    found |= {"initial_state": "B H K V", "segment_ids": "B T"}
    if g is not None:
        found["g"] = "B T H" if g.ndim == 3 else of_heads(g)
    return found if erase_key is None else found | {"erase_key": of_heads(erase_key)}


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
    op = wy_grid_tpu.Op("delta_rule", _Arguments, read == "undecayed", HEADS)
    return wy_grid_tpu.run(op, tokens, columns, initial_state, segment_ids, scale=scale)


class _Arguments(wy_grid_tpu.Arguments):
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
