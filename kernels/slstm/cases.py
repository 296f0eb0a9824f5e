"""Test and benchmark cases of slstm."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ..cases import Arrays
from ..cases import Case as AnyCase
from ..linear_scan.cases import PACKED, PADDED


def canonical(state):
    """The state without its gauge: ``exp(m) c`` and ``exp(m) n`` as their quotient and the logarithm of the latter."""
    c, n, h, m = state
    empty = n == 0
    some = jnp.where(empty, 1, n)
    return c / some, jnp.where(empty, 0, jax.lax.stop_gradient(m) + jnp.log(some)), h


def inputs(B=2, T=37, H=3, D=5, *, i: float | None = 0.0, f: float | None = 1.0, state=True, ids=None):
    """Arguments of slstm; ``i`` and ``f`` are added to their gates, None: 90 or -90 to either sign."""

    def make(rng: np.random.Generator) -> Arrays:
        gates = rng.normal(size=(B, T, H, 4, D))
        for gate, shift in enumerate((i, f)):
            extreme = np.where(rng.uniform(size=(B, T, H, D)) < 0.5, 90.0, -90.0)
            gates[:, :, :, gate] += extreme if shift is None else shift
        made = Arrays(gates=gates, r=rng.normal(size=(H, 4, D, D)) / D)
        if state:
            c, n, h, m = rng.normal(size=(4, B, H, D))
            made["initial_state"] = (c, 1 + n**2, h, m)
        if ids is not None:
            made["segment_ids"] = np.asarray(ids, np.int32)
        return made

    return make


Case = partial(AnyCase, canonical=canonical)
BFLOAT16 = partial(Case, dtype="bfloat16", forward=5e-3, gradient=1e-2)

CASES = (
    Case("state", inputs()),
    Case("no state", inputs(T=24, state=False)),
    Case("one token", inputs(T=1)),
    Case("one token, closed input gate, no state", inputs(T=1, i=-100.0, state=False)),
    Case("closed forget gate", inputs(f=-100.0)),
    Case("closed input gate", inputs(i=-100.0, ids=PACKED)),
    Case("extreme gates", inputs(i=None, f=None)),
    Case("packed", inputs(ids=PACKED)),
    Case("padding", inputs(ids=PADDED)),
    BFLOAT16("bfloat16", inputs(ids=PADDED)),
    Case("wide", inputs(B=1, T=18, H=2, D=160)),
    Case("many sequences", inputs(B=9, T=3, H=2)),
    Case("long", inputs(B=1, T=515, H=2, D=32, f=3.0), slow=True),
)
