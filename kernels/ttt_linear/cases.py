"""Test and benchmark cases of ttt_linear."""

from typing import Any

import numpy as np

from ..cases import Arrays, Case
from ..gla.cases import BFLOAT16, PACKED, PADDED


def inputs(B=2, T=70, H=2, K=12, M=16, *, state=True, ids=None, zero_key=False):
    """Arguments; with a state, one row begins at place 5 of a block (or the last) and the others at 0."""

    def make(rng: np.random.Generator) -> Arrays:
        q, k, v = rng.normal(size=(3, B, T, H, K)) + 0.1
        made: dict[str, Any] = dict(
            q=q, k=0 * k if zero_key else k, v=v,
            eta=rng.uniform(0.02, 0.1, size=(B, T, H)),
            schedule=rng.uniform(0.2, 1.0, size=M),
            W0=rng.normal(size=(H, K, K)) / K**0.5,
            c0=rng.normal(size=(H, K)),
            scale=1 + 0.3 * rng.normal(size=(H, K)),
            bias=0.3 * rng.normal(size=(H, K)),
        )  # fmt: skip
        if state:
            matrices, vectors = 0.3 * rng.normal(size=(2, B, H, K, K)), 0.3 * rng.normal(size=(2, B, H, K))
            place = np.array([min(5, M - 1)] + [0] * (B - 1), float)
            made["initial_state"] = (matrices[0], vectors[0], matrices[1], vectors[1], place)
        if ids is not None:
            made["segment_ids"] = np.asarray(ids, np.int32)
        return made

    return make


CASES = (
    Case("state", inputs()),
    Case("no state", inputs(T=37, state=False)),
    Case("one token", inputs(T=1)),
    Case("blocks of three", inputs(T=11, M=3)),
    Case("blocks of one", inputs(T=5, M=1)),
    Case("packed", inputs(ids=PACKED)),
    Case("padding", inputs(ids=PADDED)),
    Case("zero key", inputs(T=37, zero_key=True)),
    BFLOAT16("bfloat16", inputs(ids=PADDED)),
    Case("long", inputs(B=1, T=1025, K=64), slow=True),
)
