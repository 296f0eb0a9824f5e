"""Test and benchmark cases of gla."""

from functools import partial

import numpy as np

from ..cases import Arrays, Case


def gates(rng: np.random.Generator, kind: str | None, shape: tuple[int, ...]) -> np.ndarray:
    """Natural-log decays: as a sigmoid gate gives them, or -100 everywhere, or -100 at half the places."""
    if kind == "strong":
        return np.full(shape, -100.0)
    g = -np.log1p(np.exp(-rng.normal(size=shape))) / 4
    return np.where(rng.uniform(size=shape) < 0.5, -100.0, g) if kind == "half strong" else g


def gate_shape(rank: str, B: int, T: int, H: int, Hk: int, K: int) -> tuple[int, ...]:
    """The shape of g by its name."""
    return {"H": (H,), "BTH": (B, T, H), "BTHK": (B, T, H, K), "BTHkK": (B, T, Hk, K)}[rank]


def inputs(
    B=2, T=70, H=4, Hk=2, K=16, V=24, *, rank=None, gate=None, values=False, bonus=False, state=True, scale=False,
    zero_key=False, ids=None,
):  # fmt: skip
    """Arguments of gla; ``rank`` names the axes of g, ``gate`` its kind, ``values`` decays the value axis instead."""

    def make(rng: np.random.Generator) -> Arrays:
        q, k = rng.normal(size=(2, B, T, Hk, K)) + 0.1
        made = Arrays(q=q, k=0 * k if zero_key else k, v=rng.normal(size=(B, T, H, V)) - 0.2)
        if rank is not None:
            made["g"] = gates(rng, gate, gate_shape(rank, B, T, H, Hk, K))
        if values:
            made["gv"] = gates(rng, gate, (B, T, H, V))
        if bonus:
            made["bonus"] = rng.normal(size=(H, K)) + 0.5
        if scale:
            made["scale"] = np.asarray(rng.uniform(0.2, 0.4))
        if state:
            made["initial_state"] = rng.normal(size=(B, H, K, V)) + 0.3
        if ids is not None:
            made["segment_ids"] = np.asarray(ids, np.int32)
        return made

    return make


# A segment of one token, borders inside chunks and on them, a row whose initial state ends with its first token.
PACKED = np.stack([np.repeat([4, 2, 7, 3], [20, 1, 43, 6]), np.repeat([0, 1, 0, 5], [1, 31, 32, 6])])
# Padding on the left, in the middle (within a segment and between two) and on the right; one row has a chunk of it.
PADDED = np.stack(
    [np.repeat([-1, 2, -1, 2, 9, -1], [4, 20, 2, 15, 24, 5]), np.repeat([1, -1, 3, -2, 3], [17, 40, 1, 9, 3])]
)
BFLOAT16 = partial(Case, dtype="bfloat16", forward=5e-3, gradient=1e-2, gate_gradient=2e-2)

CASES = (
    Case("scalar gate", inputs(rank="BTH")),
    Case("no gate", inputs(T=37, scale=True)),
    Case("constant gate", inputs(T=37, rank="H", state=False)),
    Case("vector gate", inputs(rank="BTHK")),
    Case("vector gate of the key heads", inputs(T=33, rank="BTHkK", scale=True)),
    Case("one token", inputs(T=1, rank="BTH")),
    Case("one token, vector gate", inputs(T=1, rank="BTHK")),
    Case("three tokens, vector gate", inputs(T=3, rank="BTHK")),
    Case("strong scalar gate", inputs(rank="BTH", gate="strong")),
    Case("half strong scalar gate", inputs(T=130, rank="BTH", gate="half strong")),
    Case("strong vector gate", inputs(rank="BTHK", gate="strong")),
    Case("half strong vector gate", inputs(T=130, rank="BTHK", gate="half strong")),
    Case("packed", inputs(rank="BTH", ids=PACKED)),
    Case("packed, vector gate", inputs(rank="BTHK", ids=PACKED)),
    Case("padding", inputs(rank="BTH", ids=PADDED)),
    Case("padding, vector gate", inputs(rank="BTHkK", gate="half strong", ids=PADDED)),
    Case("zero key", inputs(T=37, rank="BTH", zero_key=True)),
    BFLOAT16("bfloat16", inputs(rank="BTH", ids=PADDED)),
    BFLOAT16("bfloat16, vector gate", inputs(rank="BTHK", ids=PACKED)),
    Case("value gate", inputs(T=37, values=True)),
    Case("half strong value gate", inputs(T=70, V=8, values=True, gate="half strong", ids=PADDED)),
    Case("strong value gate", inputs(T=3, values=True, gate="strong", scale=True)),
    Case("value gate, part of a chunk", inputs(T=23, Hk=4, K=32, V=32, values=True, state=False)),
    Case("one token, value gate", inputs(T=1, values=True, state=False)),
    BFLOAT16("bfloat16, value gate", inputs(values=True, ids=PACKED)),
    Case("bonus", inputs(T=37, rank="BTHK", bonus=True)),
    Case("half strong bonus", inputs(rank="BTHK", gate="half strong", bonus=True, ids=PADDED)),
    Case("strong bonus", inputs(T=3, rank="BTHkK", gate="strong", bonus=True, scale=True)),
    Case("one token, bonus", inputs(T=1, rank="BTHK", bonus=True)),
    Case("bonus, scalar gate", inputs(rank="BTH", gate="half strong", bonus=True, ids=PACKED)),
    Case("bonus, part of a chunk", inputs(T=23, Hk=4, K=32, V=32, rank="BTHK", bonus=True, state=False)),
    Case("bonus, no gate", inputs(T=37, bonus=True, state=False)),
    BFLOAT16("bfloat16, bonus", inputs(rank="BTHK", bonus=True, ids=PACKED)),
    Case("wide", inputs(B=1, T=100, H=2, Hk=1, K=256, V=16, rank="BTHK"), slow=True),
    Case("long", inputs(B=1, T=1025, H=2, Hk=2, K=64, V=64, rank="BTH"), slow=True),
    Case("long, vector gate", inputs(B=1, T=1025, H=2, Hk=2, K=64, V=64, rank="BTHK"), slow=True),
    Case("long, value gate", inputs(B=1, T=1025, H=2, Hk=2, K=64, V=64, values=True), slow=True),
    Case("long, bonus", inputs(B=1, T=1025, H=2, Hk=2, K=64, V=64, rank="BTHK", bonus=True), slow=True),
)
