"""Test and benchmark cases of log_linear."""

from typing import Any

import numpy as np

from ..cases import Arrays, Case
from ..gla.cases import BFLOAT16, PACKED, PADDED, gates


def inputs(B=2, T=70, H=2, Hk=1, K=8, V=12, L=8, *, gate=None, count=None, ids=None, zero_key=False):
    """Arguments; ``count`` is how many tokens came before, by row, or None without a state."""

    def make(rng: np.random.Generator) -> Arrays:
        q, k = rng.normal(size=(2, B, T, Hk, K)) + 0.1
        made: dict[str, Any] = {
            "q": q,
            "k": 0 * k if zero_key else k,
            "v": rng.normal(size=(B, T, H, V)) - 0.2,
            "g": gates(rng, gate, (B, T, H)),
            "weights": rng.uniform(0.1, 2.0, size=(B, T, H, L)),
        }
        if count is not None:
            states = rng.normal(size=(B, H, L - 1, K, V)) + 0.3
            held = (np.asarray(count)[:, None] >> np.arange(L - 1)) & 1  # the tree's blocks that exist
            held[:, -1] |= np.asarray(count) >> (L - 2) > 0
            made["initial_state"] = states * held[:, None, :, None, None], np.asarray(count, float)
        if ids is not None:
            made["segment_ids"] = np.asarray(ids, np.int32)
        return made

    return make


CASES = (
    Case("state", inputs(count=(5, 96))),
    Case("no state", inputs(T=37)),
    Case("one token", inputs(T=1, count=(7, 8))),
    Case("few levels", inputs(T=37, L=3, count=(0, 9))),
    Case("two levels", inputs(T=9, L=2, count=(3, 0))),
    Case("half strong gate", inputs(T=130, gate="half strong", count=(31, 1))),
    Case("packed", inputs(ids=PACKED, count=(3, 12))),
    Case("padding", inputs(ids=PADDED, count=(3, 12))),
    Case("zero key", inputs(T=37, zero_key=True)),
    BFLOAT16("bfloat16", inputs(ids=PADDED, count=(3, 12))),
    Case("long", inputs(B=1, T=1025, K=64, V=64, L=11), slow=True),
)
