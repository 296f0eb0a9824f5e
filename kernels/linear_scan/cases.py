"""Test and benchmark cases of linear_scan."""

import numpy as np

from ..cases import Arrays, Case


def inputs(B=2, T=37, D=5, *, decay="uniform", state=False, ids=None, turned=()):
    """Arguments with decays in (0, 1), one in four of them exp(-100), or near 1; those named in ``turned`` complex."""

    def make(rng: np.random.Generator) -> Arrays:
        a = rng.uniform(size=(B, T, D))
        if decay == "strong":
            a = np.where(rng.uniform(size=a.shape) < 0.25, np.exp(-100.0), a)
        elif decay == "none":
            a = np.where(rng.uniform(size=a.shape) < 0.5, 1.0, 1 - 0.01 * a)
        made = Arrays(a=a, x=rng.standard_normal((B, T, D)) + 0.3)
        if state:
            made["initial_state"] = rng.standard_normal((B, D)) - 0.5
        for name in turned:
            made[name] = made[name] * np.exp(1j * rng.uniform(0, 2 * np.pi, made[name].shape))
        if ids is not None:
            made["segment_ids"] = np.asarray(ids, np.int32)
        return made

    return make


PACKED = np.stack([np.repeat([4, 2, 7, 3], [5, 1, 20, 11]), np.repeat([0, 1, 0, 5], [16, 16, 1, 4])])
PADDED = np.stack(
    [np.repeat([-1, 2, -1, 2, 9, -1], [4, 9, 2, 6, 14, 2]), np.repeat([1, -1, 3, -2, 3], [7, 3, 1, 9, 17])]
)

ALL = ("a", "x", "initial_state")

CASES = [
    Case("state", inputs(state=True)),
    Case("no state, one channel, long memory", inputs(B=3, T=300, D=1, decay="none")),
    Case("strong decay", inputs(T=130, D=33, decay="strong", state=True)),
    Case("one token", inputs(T=1, state=True)),
    Case("reverse", inputs(T=53, state=True), static={"reverse": True}),
    Case("packed", inputs(state=True, ids=PACKED)),
    Case("packed, reverse", inputs(state=True, ids=PACKED), static={"reverse": True}),
    Case("padding", inputs(state=True, decay="strong", ids=PADDED)),
    Case("padding, reverse", inputs(state=True, ids=PADDED), static={"reverse": True}),
    Case("bfloat16", inputs(T=70, D=6, state=True), dtype="bfloat16", forward=5e-3, gradient=1e-2),
    Case("bfloat16, padding", inputs(state=True, ids=PADDED), dtype="bfloat16", forward=5e-3, gradient=1e-2),
    Case("complex", inputs(state=True, turned=ALL), dtype="complex64"),
    Case("complex, real input", inputs(T=18, decay="none", state=True, turned=("a",)), dtype="complex64"),
    Case("complex, real decay", inputs(T=18, turned=("x",)), dtype="complex64"),
    Case("complex, padding", inputs(state=True, ids=PADDED, turned=ALL), dtype="complex64"),
    Case("complex, packed, reverse", inputs(state=True, ids=PACKED, turned=ALL), {"reverse": True}, "complex64"),
    Case("long", inputs(B=1, T=2051, D=64, state=True), slow=True),
]
