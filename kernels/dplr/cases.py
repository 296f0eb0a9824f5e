"""Test and benchmark cases of dplr."""

import numpy as np

from ..cases import Arrays, Case
from ..delta_rule.cases import CORRELATED, keys
from ..gla.cases import BFLOAT16, PACKED, PADDED, gates


def inputs(B=2, T=70, H=4, Hk=2, K=16, V=24, *, gate=None, key=None, rate=None, state=True, scale=False, ids=None):
    """Arguments of dplr as RWKV-7 gives them: a = -kappa and b = rate * kappa, with a rate for each channel.

    ``gate`` and ``key`` are kinds; k and g have H heads, q, a and b have Hk.
    """

    def make(rng: np.random.Generator) -> Arrays:
        kappa = keys(rng, key, (B, T, Hk, K))
        made = Arrays(
            q=rng.normal(size=(B, T, Hk, K)) + 0.1,
            k=rng.normal(size=(B, T, H, K)) / np.sqrt(K),
            v=rng.normal(size=(B, T, H, V)) - 0.2,
            a=-kappa,
            b=kappa * (rng.uniform(0, 1, size=kappa.shape) if rate is None else rate),
            g=gates(rng, gate, (B, T, H, K)),
        )
        if scale:
            made["scale"] = np.asarray(rng.uniform(0.2, 0.4))
        if state:
            made["initial_state"] = rng.normal(size=(B, H, K, V)) + 0.3
        if ids is not None:
            made["segment_ids"] = np.asarray(ids, np.int32)
        return made

    return make


CASES = (
    Case("grouped heads", inputs()),
    Case("no groups", inputs(T=37, Hk=4, scale=True, state=False)),
    Case("one token", inputs(T=1)),
    Case("three tokens", inputs(T=3)),
    Case("strong gate", inputs(T=37, gate="strong")),
    Case("half strong gate", inputs(T=130, gate="half strong")),
    Case("packed", inputs(ids=PACKED)),
    Case("packed, half strong gate", inputs(gate="half strong", ids=PACKED)),
    Case("padding", inputs(gate="half strong", ids=PADDED)),
    Case("zero key", inputs(T=37, key="zero")),
    CORRELATED("correlated keys", inputs(T=130, key="correlated")),
    CORRELATED("equal keys, rate 1.99", inputs(T=130, key="equal", rate=1.99)),
    BFLOAT16("bfloat16", inputs(ids=PADDED)),
    Case("wide", inputs(B=1, T=100, H=2, Hk=1, K=256, V=16), slow=True),
    Case("long", inputs(B=1, T=1025, H=2, K=64, V=64), slow=True),
)
