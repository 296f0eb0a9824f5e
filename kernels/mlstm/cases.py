"""Test and benchmark cases of mlstm."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ..cases import Arrays
from ..cases import Case as AnyCase
from ..gla.cases import PACKED, PADDED


def canonical(state):
    """The state without its gauge: ``exp(m) C`` and ``exp(m) n`` as one vector's direction and logarithmic length."""
    C, n, m = state
    square = jnp.sum(C**2, (2, 3)) + jnp.sum(n**2, 2)
    empty = square == 0
    length = jnp.sqrt(jnp.where(empty, 1, square))
    log_length = jnp.where(empty, 0, jax.lax.stop_gradient(m) + jnp.log(length))
    return C / length[..., None, None], n / length[..., None], log_length


def inputs(B=2, T=70, H=4, Hk=2, K=16, V=24, *, i="mild", f="mild", state=True, scale=False, zero_key=False, ids=None):
    """Arguments of mlstm; ``i`` and ``f`` are kinds of gates."""

    def gates(rng: np.random.Generator, kind: str) -> np.ndarray:
        mild, strong = rng.normal(size=(B, T, H)), rng.uniform(size=(B, T, H)) < 0.5
        extremes = np.where(rng.uniform(size=(B, T, H)) < 0.5, 90.0, -90.0)
        return {
            "mild": mild,
            "closed": np.full((B, T, H), -100.0),
            "half closed": np.where(strong, -100.0, mild + 1),
            "extreme": np.where(strong, mild, extremes + mild),
            "open": mild + 4,
        }[kind]

    def make(rng: np.random.Generator) -> Arrays:
        q, k = rng.normal(size=(2, B, T, Hk, K)) + 0.1
        made = Arrays(q=q, k=0 * k if zero_key else k, v=rng.normal(size=(B, T, H, V)) - 0.2)
        made["i"], made["f"] = gates(rng, i), gates(rng, f)
        if scale:
            made["scale"] = np.asarray(rng.uniform(0.2, 0.4))
        if state:
            C, n, m = (rng.normal(size=(B, H, K, V)), rng.normal(size=(B, H, K)), rng.normal(size=(B, H)))
            made["initial_state"] = (C + 0.3, n - 0.1, m)
        if ids is not None:
            made["segment_ids"] = np.asarray(ids, np.int32)
        return made

    return make


Case = partial(AnyCase, canonical=canonical)
# The divisor nearly vanishes against what it divides where its floor, exp(-m), does.
EXTREME = partial(Case, forward=5e-5, gradient=2e-4)
BFLOAT16 = partial(Case, dtype="bfloat16", forward=5e-3, gradient=1e-2, gate_gradient=2e-2)

CASES = (
    Case("mild gates", inputs()),
    Case("no state", inputs(T=37, scale=True, state=False)),
    Case("open forget gates", inputs(T=130, f="open")),
    Case("one token", inputs(T=1)),
    Case("one token, no state", inputs(T=1, state=False)),
    Case("three tokens", inputs(T=3)),
    Case("closed forget gates", inputs(f="closed")),
    Case("half closed forget gates", inputs(T=130, f="half closed")),
    Case("closed input gates", inputs(i="closed")),
    EXTREME("extreme input gates", inputs(i="extreme", f="half closed")),
    Case("packed", inputs(ids=PACKED)),
    Case("padding", inputs(ids=PADDED)),
    Case("padding, closed input gates", inputs(i="half closed", ids=PADDED)),
    Case("zero key", inputs(T=37, zero_key=True)),
    BFLOAT16("bfloat16", inputs(ids=PADDED)),
    BFLOAT16("bfloat16, packed", inputs(f="open", ids=PACKED)),
    Case("wide", inputs(B=1, T=100, H=2, Hk=1, K=256, V=16), slow=True),
    Case("long", inputs(B=1, T=1025, H=2, Hk=2, K=64, V=64, f="open"), slow=True),
)
