"""Test and benchmark cases of diagonal_ssm."""

import numpy as np

from ..cases import Arrays, Case


def inputs(B=2, T=37, D=5, N=3, *, memory=400.0, strong=False, state=False, ids=None):
    """Decays that turn, from 1 / e in ``memory`` tokens to 1 / e in one; with ``strong``, some are exp(-100)."""

    def make(rng: np.random.Generator) -> Arrays:
        rate = -(memory ** -rng.uniform(0, 1, (D, N)))
        if strong:
            rate[:, -1] = -100
        made = Arrays(
            x=rng.standard_normal((B, T, D)) + 0.3,
            log_a=rate + 1j * rng.uniform(0, np.pi, (D, N)),
            c=rng.standard_normal((D, N)) + 1j * rng.standard_normal((D, N)) + 0.2,
        )
        if state:
            made["initial_state"] = rng.standard_normal((B, D, N)) + 1j * rng.standard_normal((B, D, N)) - 0.5
        if ids is not None:
            made["segment_ids"] = np.asarray(ids, np.int32)
        return made

    return make


PACKED = np.stack([np.repeat([4, 2, 7, 3], [5, 1, 20, 11]), np.repeat([0, 1, 0, 5], [16, 16, 1, 4])])
PADDED = np.stack(
    [np.repeat([-1, 2, -1, 2, 9, -1], [4, 9, 2, 6, 14, 2]), np.repeat([1, -1, 3, -2, 3], [7, 3, 1, 9, 17])]
)

CASES = [
    Case("state", inputs(state=True)),
    Case("strong decay", inputs(T=33, strong=True, state=True)),
    Case("one token", inputs(T=1, state=True)),
    Case("no state, several chunks", inputs(B=1, T=150, D=3, N=2)),
    Case("packed", inputs(state=True, ids=PACKED)),
    Case("padding", inputs(strong=True, state=True, ids=PADDED)),
    Case("bfloat16", inputs(state=True), dtype="bfloat16", forward=5e-3, gradient=1e-2),
    Case("bfloat16, padding", inputs(state=True, ids=PADDED), dtype="bfloat16", forward=5e-3, gradient=1e-2),
    Case("long", inputs(B=1, T=2051, D=16, N=8, memory=100.0, state=True), slow=True),
]
