"""What an op says to wrong arguments: the argument, its shape and the shape expected."""

import re

import jax.numpy as jnp
import jaxtyping
import pytest
from subquad import kernels
from subquad.kernels import dispatch

B, T, H, Hk, K, V, D, W, N, L = 2, 6, 4, 2, 8, 3, 5, 4, 3, 7

RIGHT = {
    "delta_rule": {"q": (B, T, Hk, K), "k": (B, T, Hk, K), "v": (B, T, H, V), "beta": (B, T, H)},
    "diagonal_ssm": {"x": (B, T, D), "log_a": (D, N), "c": (D, N)},
    "dplr": {name: (B, T, Hk, K) for name in "qkabg"} | {"v": (B, T, H, V)},
    "gla": {"q": (B, T, Hk, K), "k": (B, T, Hk, K), "v": (B, T, H, V)},
    "linear_scan": {"a": (B, T, D), "x": (B, T, D)},
    "long_conv": {"x": (B, T, D), "kernel": (L, D)},
    "longhorn": {"x": (B, T, D), "delta": (B, T, D), "k": (B, T, N), "q": (B, T, N)},
    "selective_scan": {"x": (B, T, D), "dt": (B, T, D), "A": (D, N), "B": (B, T, N), "C": (B, T, N)},
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
    "mlstm": {"q": (B, T, Hk, K), "k": (B, T, Hk, K), "v": (B, T, H, V), "i": (B, T, H), "f": (B, T, H)},
    "slstm": {"gates": (B, T, H, 4, D), "r": (H, 4, D, D)},
    "sparse_attention": {"q": (B, T, H, K), "k": (B, T, Hk, K), "v": (B, T, Hk, V)},
}
STATIC = {"sparse_attention": {"mask": kernels.Window(4)}}
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
    ("diagonal_ssm", "log_a", (N, D), "[D, N]"),
    ("diagonal_ssm", "c", (D, N + 1), "[D, N]"),
    ("diagonal_ssm", "initial_state", (B, N, D), "[B, D, N]"),
    ("delta_rule", "erase_key", (B, T, 3, K), "[B, T, Hk|H, K]"),
    ("dplr", "q", (B, T, K), "[B, T, Hk|H, K]"),
    ("dplr", "k", (B, T, Hk, V), "K=8"),
    ("dplr", "v", (B, T, V), "[B, T, H, V]"),
    ("dplr", "v", (B, T, 3, V), "a multiple of the 2 heads"),
    ("dplr", "a", (B, T + 1, Hk, K), "[B, T, Hk|H, K]"),
    ("dplr", "g", (B, T, H), "[B, T, Hk|H, K]"),
    ("dplr", "initial_state", (B, H, V, K), "[B, H, K, V]"),
    ("dplr", "segment_ids", (T,), "[B, T]"),
    ("gla", "q", (B, T, K), "[B, T, Hk, K]"),
    ("gla", "k", (B, T, H, K), "[B, T, Hk, K]"),
    ("gla", "v", (B, T, V), "[B, T, H, V]"),
    ("gla", "v", (B, T, 3, V), "a multiple of the 2 heads"),
    ("gla", "g", (K,), "[H]"),
    ("gla", "g", (B, H), "[B, T, H]"),
    ("gla", "g", (B, T, H, V), "K=8"),
    ("gla", "gv", (B, T, H, K), "V=3"),
    ("gla", "bonus", (Hk, K), "H=4"),
    ("gla", "initial_state", (B, H, K), "[B, H, K, V]"),
    ("gla", "segment_ids", (T,), "[B, T]"),
    ("linear_scan", "a", (B, T, D + 1), "[B, T, D]"),
    ("linear_scan", "a", (T, D), "[B, T, D]"),
    ("linear_scan", "x", (B, T, H, D), "[B, T, D]"),
    ("linear_scan", "initial_state", (B, 1, D), "[B, D]"),
    ("linear_scan", "segment_ids", (T, B), "[B, T]"),
    ("long_conv", "kernel", (D, L), "[L, D]"),
    ("long_conv", "kernel", (0, D), "L >= 1"),
    ("long_conv", "initial_state", (B, L, D), "[B, L-1, D]"),
    ("longhorn", "delta", (B, T, N), "[B, T, D]"),
    ("longhorn", "k", (B, T, D, N), "[B, T, N]"),
    ("longhorn", "initial_state", (B, N, D), "[B, D, N]"),
    ("selective_scan", "dt", (B, D), "[B, T, D]"),
    ("selective_scan", "A", (N, D), "[D, N]"),
    ("selective_scan", "B", (B, T, D), "[B, T, N]"),
    ("selective_scan", "C", (B, T + 1, N), "[B, T, N]"),
    ("selective_scan", "initial_state", (B, N, D), "[B, D, N]"),
    ("mlstm", "k", (B, T, H, K), "[B, T, Hk, K]"),
    ("mlstm", "v", (B, T, 3, V), "a multiple of the 2 heads"),
    ("mlstm", "i", (B, T, Hk), "[B, T, H]"),
    ("mlstm", "f", (B, T, H, K), "[B, T, H]"),
    ("mlstm", "segment_ids", (B, T + 1), "[B, T]"),
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
    ("slstm", "gates", (B, T, H, 3, D), "[B, T, H, 4, D]"),
    ("slstm", "r", (H, 4, D, D + 1), "[H, 4, D, D]"),
    ("slstm", "segment_ids", (B,), "[B, T]"),
    ("sparse_attention", "q", (B, T, K), "[B, T, H, K]"),
    ("sparse_attention", "k", (B, T, Hk, V), "K=8"),
    ("sparse_attention", "v", (B, T, H, V), "Hk=2"),
    ("sparse_attention", "q", (B, T, 3, K), "a multiple of the 2 heads"),
    ("sparse_attention", "segment_ids", (B, T + 1), "[B, S]"),
]


@pytest.fixture(autouse=True)
def untyped(monkeypatch):
    """Switches off the hook's shape checks, which a user does not have and which would speak first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def arguments(op, **shapes):
    shapes = RIGHT[op] | shapes
    arrays = {
        name: jnp.ones(shape, jnp.int32 if name == "segment_ids" else jnp.float32) for name, shape in shapes.items()
    }
    return arrays | STATIC.get(op, {})


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
    with pytest.raises(ValueError, match=f"{op}: there is no impl='triton'; choose from auto, .*xla, reference"):
        getattr(kernels, op)(**arguments(op), impl="triton")


def test_an_unknown_read_and_wrong_pairs_are_refused():
    with pytest.raises(ValueError, match="delta_rule: read='late'; choose from 'decayed', 'undecayed'"):
        kernels.delta_rule(**arguments("delta_rule"), read="late")  # pyright: ignore[reportArgumentType]
    erase, write = jnp.ones((B, T, H, K)), jnp.ones((B, T, H, V))
    for pair, part in (((erase[..., 1:], write), "erase"), ((erase, write[:, :, :Hk]), "write")):
        with pytest.raises(ValueError, match=f"delta_rule: beta's {part} has shape"):
            kernels.delta_rule(**arguments("delta_rule") | {"beta": pair})


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="short_conv: there is no activation='gelu'; choose from None, 'silu'"):
        kernels.short_conv(**arguments("short_conv"), activation="gelu")  # pyright: ignore[reportArgumentType]


def test_explain_refuses_an_unknown_op():
    with pytest.raises(ValueError, match="there is no op 'mamba'; choose from delta_rule, "):
        kernels.explain("mamba")


@pytest.mark.parametrize("op", dispatch.IMPLEMENTATIONS)
def test_explain_refuses_what_the_op_refuses(op):
    name, shape = next(iter(RIGHT[op].items()))
    with pytest.raises(ValueError, match=f"{op}: .* expected"):
        kernels.explain(op, **arguments(op, **{name: shape[1:]}))


@pytest.mark.parametrize(("name", "shape"), [("g", (B, T, H)), ("bonus", (H, K))])
def test_gates_of_both_axes_are_refused(name, shape):
    with pytest.raises(ValueError, match=f"gla: gv excludes {name}; give one of them"):
        kernels.gla(**arguments("gla", gv=(B, T, H, V), **{name: shape}))
