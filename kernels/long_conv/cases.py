"""Test and benchmark cases of long_conv."""

import numpy as np

from ..cases import Arrays, Case


def inputs(B=2, T=37, D=5, L=37, *, state=False, ids=None):
    """Arguments of which no two rows or taps look alike; taps shrink with the lag, as those of trained filters do."""

    def make(rng: np.random.Generator) -> Arrays:
        kernel = (rng.standard_normal((L, D)) + 0.2) * np.exp(-np.linspace(0, 3, L))[:, None]
        made = Arrays(x=rng.standard_normal((B, T, D)) + 0.3, kernel=kernel)
        if state:
            made["initial_state"] = rng.standard_normal((B, L - 1, D)) - 0.5
        if ids is not None:
            made["segment_ids"] = np.asarray(ids, np.int32)
        return made

    return make


PACKED = np.stack([np.repeat([4, 2, 7, 3], [5, 1, 20, 11]), np.repeat([0, 1, 0, 5], [16, 16, 1, 4])])
PADDED = np.stack(
    [np.repeat([-1, 2, -1, 2, 9, -1], [4, 9, 2, 6, 14, 2]), np.repeat([1, -1, 3, -2, 3], [7, 3, 1, 9, 17])]
)
LONG_PACKED = np.repeat([1, 2, 3], [70, 1, 60])[None]

CASES = [
    Case("state", inputs(state=True)),
    Case("no state", inputs(T=65, L=65)),
    Case("longer than the sequence", inputs(T=9, L=20, D=3, state=True)),
    Case("shorter than the sequence", inputs(T=50, L=7, D=3, state=True)),
    Case("one token", inputs(T=1, state=True)),
    Case("one tap", inputs(T=6, L=1, state=True)),
    Case("packed", inputs(state=True, ids=PACKED)),
    Case("packed, no state, several levels", inputs(B=1, T=131, D=3, L=131, ids=LONG_PACKED)),
    Case("padding", inputs(state=True, ids=PADDED)),
    Case("padding, short kernel", inputs(L=4, state=True, ids=PADDED)),
    Case("bfloat16, padding", inputs(state=True, ids=PADDED), dtype="bfloat16", forward=5e-3, gradient=1e-2),
    Case("long", inputs(B=1, T=2051, D=8, L=2051), slow=True),
]
