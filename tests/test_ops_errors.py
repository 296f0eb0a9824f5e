"""What an op says to wrong arguments: the argument, its shape and the shape expected."""

import re

import jax.numpy as jnp
import jaxtyping
import pytest
from subquad import kernels
from subquad.kernels import dispatch

B, T, H, Hk, K, V, D, W = 2, 6, 4, 2, 8, 3, 5, 4

RIGHT = {
    "delta_rule": {"q": (B, T, Hk, K), "k": (B, T, Hk, K), "v": (B, T, H, V), "beta": (B, T, H)},
    "gla": {"q": (B, T, Hk, K), "k": (B, T, Hk, K), "v": (B, T, H, V)},
    "linear_scan": {"a": (B, T, D), "x": (B, T, D)},
    "log_linear": {"q": (B, T, Hk, K), "k": (B, T, Hk, K), "v": (B, T, H, V), "g": (B, T, H), "weights": (B, T, H, W)},
    "short_conv": {"x": (B, T, D), "w": (W, D)},
    "ttt_linear": {
        "q": (B, T, H, K),
        "k": (B, T, H, K),
        "v": (B, T, H, K),
        "eta": (B, T, H),
        "schedule": (W,),
        "W0": (H, K, K),
        "c0": (H, K),
        "scale": (H, K),
        "bias": (H, K),
    },
}
WRONG = [  # op, argument, its shape, what the message must expect
    ("delta_rule", "q", (B, T, K), "[B, T, Hk, K]"),
    ("delta_rule", "k", (B, T + 1, Hk, K), "[B, T, Hk, K]"),
    ("delta_rule", "v", (B, T, V), "[B, T, H, V]"),
    ("delta_rule", "beta", (B, T, Hk), "[B, T, H]"),
    ("delta_rule", "beta", (B, T, H, K), "[B, T, H]"),
    ("delta_rule", "g", (B, T, H, K, 1), "[B, T, H, K]"),
    ("delta_rule", "g", (B, T, H, V), "K=8"),
    ("delta_rule", "initial_state", (B, H, V, K), "[B, H, K, V]"),
    ("delta_rule", "segment_ids", (B, T + 1), "[B, T]"),
    ("gla", "q", (B, T, K), "[B, T, Hk, K]"),
    ("gla", "k", (B, T, H, K), "[B, T, Hk, K]"),
    ("gla", "v", (B, T, V), "[B, T, H, V]"),
    ("gla", "v", (B, T, 3, V), "a multiple of the 2 heads"),
    ("gla", "g", (K,), "[H]"),
    ("gla", "g", (B, H), "[B, T, H]"),
    ("gla", "g", (B, T, H, V), "K=8"),
    ("gla", "initial_state", (B, H, K), "[B, H, K, V]"),
    ("gla", "segment_ids", (T,), "[B, T]"),
    ("linear_scan", "a", (B, T, D + 1), "[B, T, D]"),
    ("linear_scan", "a", (T, D), "[B, T, D]"),
    ("linear_scan", "x", (B, T, H, D), "[B, T, D]"),
    ("linear_scan", "initial_state", (B, 1, D), "[B, D]"),
    ("linear_scan", "segment_ids", (T, B), "[B, T]"),
    ("log_linear", "q", (B, T, K), "[B, T, Hk, K]"),
    ("log_linear", "k", (B, T, H, K), "[B, T, Hk, K]"),
    ("log_linear", "v", (B, T, 3, V), "a multiple of the 2 heads"),
    ("log_linear", "g", (B, T, H, K), "[B, T, H]"),
    ("log_linear", "weights", (B, T, H), "[B, T, H, L]"),
    ("log_linear", "weights", (B, T, H, 1), "L >= 2"),
    ("log_linear", "segment_ids", (T,), "[B, T]"),
    ("short_conv", "x", (T, D), "[B, T, D]"),
    ("short_conv", "w", (D, W), "[W, D]"),
    ("short_conv", "w", (0, D), "W >= 1"),
    ("short_conv", "b", (W,), "[D]"),
    ("short_conv", "initial_state", (B, W, D), "[B, W-1, D]"),
    ("short_conv", "segment_ids", (B, T - 1), "[B, T]"),
    ("ttt_linear", "q", (B, T, K), "[B, T, H, K]"),
    ("ttt_linear", "k", (B, T, Hk, K), "[B, T, H, K]"),
    ("ttt_linear", "v", (B, T, H, V), "K=8"),
    ("ttt_linear", "eta", (B, T, H, 1), "[B, T, H]"),
    ("ttt_linear", "schedule", (H, W), "[M]"),
    ("ttt_linear", "W0", (K, K), "[H, K, K]"),
    ("ttt_linear", "c0", (K,), "[H, K]"),
    ("ttt_linear", "scale", (K,), "[H, K]"),
    ("ttt_linear", "bias", (H, V), "[H, K]"),
    ("ttt_linear", "segment_ids", (T,), "[B, T]"),
]


@pytest.fixture(autouse=True)
def untyped(monkeypatch):
    """Switches off the hook's shape checks, which a user does not have and which would speak first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def arguments(op, **shapes):
    shapes = RIGHT[op] | shapes
    return {
        name: jnp.ones(shape, jnp.int32 if name == "segment_ids" else jnp.float32) for name, shape in shapes.items()
    }


@pytest.mark.parametrize(("op", "name", "shape", "expected"), WRONG)
def test_a_wrong_shape_is_named(op, name, shape, expected):
    with pytest.raises(ValueError, match=f"^{op}: ") as info:
        getattr(kernels, op)(**arguments(op, **{name: shape}))
    message = str(info.value)
    assert "\n" not in message
    if "heads" in expected:  # the count of heads, rather than the whole shape
        assert f"{name} has {shape[2]} heads" in message
    else:
        assert re.search(rf"\b{name} has shape {re.escape(str(shape))}; expected ", message), message
    assert expected in message.split("expected")[1], message


@pytest.mark.parametrize("op", dispatch.IMPLEMENTATIONS)
def test_ids_that_are_not_integers_are_refused(op):
    with pytest.raises(ValueError, match=f"{op}: segment_ids has dtype float32; expected integers"):
        getattr(kernels, op)(**arguments(op), segment_ids=jnp.zeros((B, T)))


@pytest.mark.parametrize("op", dispatch.IMPLEMENTATIONS)
def test_an_unknown_implementation_is_refused(op):
    with pytest.raises(ValueError, match=f"{op}: there is no impl='triton'; choose from auto, xla, reference"):
        getattr(kernels, op)(**arguments(op), impl="triton")


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="short_conv: there is no activation='gelu'; choose from None, 'silu'"):
        kernels.short_conv(**arguments("short_conv"), activation="gelu")  # pyright: ignore[reportArgumentType]


def test_explain_refuses_an_unknown_op():
    with pytest.raises(ValueError, match="there is no op 'mamba'; choose from delta_rule, gla"):
        kernels.explain("mamba")


@pytest.mark.parametrize("op", dispatch.IMPLEMENTATIONS)
def test_explain_refuses_what_the_op_refuses(op):
    name, shape = next(iter(RIGHT[op].items()))
    with pytest.raises(ValueError, match=f"{op}: .* expected"):
        kernels.explain(op, **arguments(op, **{name: shape[1:]}))
