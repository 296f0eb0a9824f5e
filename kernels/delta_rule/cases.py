"""Test and benchmark cases of the delta rule."""

from functools import partial

import numpy as np

from ..cases import Arrays, Case
from ..gla.cases import BFLOAT16, PACKED, PADDED, gate_shape, gates


def keys(rng: np.random.Generator, kind: str | None, shape: tuple[int, ...]) -> np.ndarray:
    """Keys of unit length: independent, correlated (a common part three times the rest), all equal, or zero."""
    k = rng.normal(size=shape)
    common = rng.normal(size=(shape[0], 1, *shape[2:]))
    if kind == "correlated":
        k = 0.3 * k + common
    elif kind == "equal":
        k = np.broadcast_to(common, shape)
    elif kind == "zero":
        return np.zeros(shape)
    return k / np.linalg.norm(k, axis=-1, keepdims=True)


def inputs(
    B=2, T=70, H=4, Hk=2, K=16, V=24, *, rank=None, gate=None, key=None, beta=None, erase=None, erase_key=None,
    state=True, scale=False, ids=None,
):  # fmt: skip
    """Arguments of delta_rule.

    ``rank`` names the axes of g, ``gate`` and ``key`` are kinds; beta is from (0, 2); ``erase`` and ``erase_key`` are
    the numbers of heads of a per-channel erase and of an erase key.
    """

    def make(rng: np.random.Generator) -> Arrays:
        made = Arrays(
            q=rng.normal(size=(B, T, Hk, K)) + 0.1,
            k=keys(rng, key, (B, T, Hk, K)),
            v=rng.normal(size=(B, T, H, V)) - 0.2,
            beta=rng.uniform(0, 2, size=(B, T, H)) if beta is None else np.full((B, T, H), beta),
        )
        if erase is not None:
            made["beta"] = (rng.uniform(0, 2, size=(B, T, erase, K)), rng.uniform(0, 1, size=(B, T, H, V)))
        if erase_key is not None:
            made["erase_key"] = 0.6 * keys(rng, None, (B, T, erase_key, K)) + 0.4 * made["k"][:, :, [0] * erase_key]
        if rank is not None:
            made["g"] = gates(rng, gate, gate_shape(rank, B, T, H, Hk, K))
        if scale:
            made["scale"] = np.asarray(rng.uniform(0.2, 0.4))
        if state:
            made["initial_state"] = rng.normal(size=(B, H, K, V)) + 0.3
        if ids is not None:
            made["segment_ids"] = np.asarray(ids, np.int32)
        return made

    return make


# Rounding errors grow with the condition of the triangular system, which such keys make large.
CORRELATED = partial(Case, forward=3e-5, gradient=3e-5)

UNDECAYED = {"read": "undecayed"}

CASES = (
    Case("scalar gate", inputs(rank="BTH")),
    Case("no gate", inputs(T=37, scale=True, state=False)),
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
    Case("padding", inputs(ids=PADDED)),
    Case("padding, vector gate", inputs(rank="BTHkK", gate="half strong", ids=PADDED)),
    Case("zero key", inputs(T=37, rank="BTH", key="zero")),
    CORRELATED("correlated keys", inputs(T=130, key="correlated")),
    CORRELATED("equal keys, beta 1.99", inputs(T=130, key="equal", beta=1.99)),
    Case("erase and write by channel", inputs(T=37, rank="BTHK", erase=4, ids=[[0] * 9 + [1] * 28, [2] * 37])),
    Case("erase by channel of the key heads", inputs(T=21, rank="BTH", erase=2, scale=True)),
    Case("erase key", inputs(T=37, rank="BTHkK", erase_key=4)),
    Case("undecayed read", inputs(rank="BTH", erase_key=2, ids=PACKED), UNDECAYED),
    Case("undecayed read, vector gate", inputs(rank="BTHK", erase=4, gate="half strong", ids=PADDED), UNDECAYED),
    Case("undecayed read, no gate", inputs(T=3, erase=2, erase_key=4, state=False), UNDECAYED),
    Case("undecayed read, one token", inputs(T=1, rank="BTH"), UNDECAYED),
    BFLOAT16("bfloat16, undecayed read", inputs(T=37, rank="BTH", erase=2, erase_key=2), UNDECAYED),
    BFLOAT16("bfloat16", inputs(rank="BTH", ids=PADDED)),
    BFLOAT16("bfloat16, vector gate", inputs(rank="BTHK", ids=PACKED)),
    Case("wide", inputs(B=1, T=100, H=2, Hk=1, K=256, V=16, rank="BTHK"), slow=True),
    Case("long", inputs(B=1, T=1025, H=2, Hk=2, K=64, V=64, rank="BTH"), slow=True),
    Case("long, vector gate", inputs(B=1, T=1025, H=2, Hk=2, K=64, V=64, rank="BTHK"), slow=True),
)
