"""Test and benchmark cases of selective_scan."""

import numpy as np

from ..cases import Arrays, Case


def inputs(B=2, T=37, D=5, N=3, *, strong=False, state=False, ids=None):
    """Arguments with step sizes around 0.1; with ``strong``, a quarter of the decays of each channel are exp(-100)."""

    def make(rng: np.random.Generator) -> Arrays:
        dt = np.exp(rng.standard_normal((B, T, D)) - 2)
        A = -(1 + np.arange(N)) * rng.uniform(0.5, 1.5, (D, N))
        if strong:
            dt = np.where(rng.uniform(size=dt.shape) < 0.25, 2.0, dt)
            A[:, -1] = -50
        made = Arrays(
            x=rng.standard_normal((B, T, D)) + 0.3,
            dt=dt,
            A=A,
            B=rng.standard_normal((B, T, N)) + 0.2,
            C=rng.standard_normal((B, T, N)) - 0.1,
        )
        if state:
            made["initial_state"] = rng.standard_normal((B, D, N)) - 0.5
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
    Case("one channel, one state", inputs(B=1, T=6, D=1, N=1)),
    Case("many channels", inputs(B=1, T=5, D=1100, N=2, state=True)),
    Case("many channels and states", inputs(B=1, D=1100, N=17, state=True)),
    Case("packed", inputs(state=True, ids=PACKED)),
    Case("padding", inputs(strong=True, state=True, ids=PADDED)),
    Case("bfloat16, padding", inputs(state=True, ids=PADDED), dtype="bfloat16", forward=5e-3, gradient=1e-2),
    Case("long", inputs(B=1, T=2051, D=16, N=16, state=True), slow=True),
]
