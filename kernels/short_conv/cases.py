"""Test and benchmark cases of short_conv."""

import numpy as np

from ..cases import Arrays, Case


def inputs(B=2, T=37, D=5, W=4, *, bias=True, state=False, ids=None):
    """Arguments of which no two rows or taps look alike."""

    def make(rng: np.random.Generator) -> Arrays:
        made: Arrays = {
            "x": rng.standard_normal((B, T, D)) + 0.3,
            "w": rng.standard_normal((W, D)) * np.arange(1.0, W + 1.0)[:, None],
        }
        if bias:
            made["b"] = rng.standard_normal(D) + 0.5
        if state:
            made["initial_state"] = rng.standard_normal((B, W - 1, D)) - 0.5
        if ids is not None:
            made["segment_ids"] = np.asarray(ids, np.int32)
        return made

    return make


PACKED = np.stack([np.repeat([4, 2, 7, 3], [5, 1, 20, 11]), np.repeat([0, 1, 0, 5], [16, 16, 1, 4])])
PADDED = np.stack(
    [np.repeat([-1, 2, -1, 2, 9, -1], [4, 9, 2, 6, 14, 2]), np.repeat([1, -1, 3, -2, 3], [7, 3, 1, 9, 17])]
)
MOSTLY_PADDING = np.stack([np.repeat([-1, 2, -1], [4, 2, 3]), np.repeat([-1], [9]), np.repeat([-1, 5], [8, 1])])
SILU = {"activation": "silu"}

CASES = [
    Case("state", inputs(state=True)),
    Case("silu", inputs(state=True), static=SILU),
    Case("no bias, no state", inputs(T=65, bias=False), static=SILU),
    Case("one tap", inputs(W=1, state=True)),
    Case("one tap, padding", inputs(W=1, state=True, ids=PADDED)),
    Case("one token", inputs(T=1, state=True)),
    Case("one token, padding", inputs(B=3, T=1, state=True, ids=[[0], [-1], [7]]), static=SILU),
    Case("shorter than the filter", inputs(T=3, W=7, D=4, state=True), static=SILU),
    Case("packed", inputs(state=True, ids=PACKED), static=SILU),
    Case("padding", inputs(state=True, ids=PADDED), static=SILU),
    Case("more padding than tokens", inputs(B=3, T=9, W=6, state=True, ids=MOSTLY_PADDING)),
    Case("bfloat16", inputs(T=70, D=6, state=True), static=SILU, dtype="bfloat16", forward=5e-3, gradient=1e-2),
    Case("bfloat16, padding", inputs(state=True, ids=PADDED), dtype="bfloat16", forward=5e-3, gradient=1e-2),
]
