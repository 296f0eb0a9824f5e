"""What ``subquad profile gpu`` measures: ops with arguments as a layer makes them, and what a call must at least do.

Whether an op has a GPU kernel is asked of ``kernels.dispatch``: a new kernel needs no line here.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .... import kernels
from ....kernels import dispatch
from ....kernels.sparse_attention import Window
from ..workloads import QKV, Size, lists
from ..workloads import SOURCES as SHARED

WINDOW = 1024
SIZES = (
    Size(4096, 16, 128, 128, 4),
    Size(32768, 16, 128, 128, 1),
    Size(2048, 32, 64, 64, 8),
    Size(8192, 8, 256, 256, 2),
)
TINY = (Size(64, 1, 64, 64, 1),)
FEW = 512
"""At most so many tokens of one row are held to the definition in float64, ..."""

SOURCES: Mapping[str, Callable[[jax.Array], jax.Array]] = SHARED | {
    "unit": lambda x: (x * jax.lax.rsqrt((x * x).sum(-1, keepdims=True))).astype(jnp.bfloat16),
    "decay": lambda x: -jax.nn.softplus(x - 3),
    "gla's decay": lambda x: jax.nn.log_sigmoid(x) / 16,
    "rwkv's decay": lambda x: -0.6065 * jax.nn.sigmoid(x),
    "small": lambda x: (x * 0.02).astype(jnp.bfloat16),
    "short step": lambda x: jax.nn.softplus(x - 3),
    "open": lambda x: x.astype(jnp.float32) + 3,
}
"""From normal numbers to an argument. Decays are as weak as those of layers, which all peers are made for."""


class Op(NamedTuple):
    """An op of ``kernels`` with what goes into it."""

    kernel: str
    arguments: Mapping[str, tuple[str, str]]
    """Of each argument: its axes after B and T, and where it comes from, a key of ``SOURCES``."""
    work: Callable[[Size], float] = lambda size: 0
    """Operations of the definition that are matrix products, a token and head, forward."""
    parameters: Mapping[str, tuple[str, str]] = MappingProxyType({})
    """The same as ``arguments`` of what is not made of the tokens, with all axes."""
    static: Mapping[str, Any] = MappingProxyType({})
    lists: tuple[int, int, int] | None = None
    """Keys of a listed block, queries that share a list, and blocks of it."""
    few: int = 2
    """... and so many heads."""
    tie: Callable[[dict[str, jax.Array]], dict[str, jax.Array]] = lambda x: x
    """What arguments have to do with each other."""

    def run(self, impl: str, x: Mapping[str, jax.Array]) -> jax.Array:
        """y."""
        static = self.static if self.lists is None else {"mask": lists(*self.lists, x["q"], x["k"])}
        out = getattr(kernels, self.kernel)(**x, **static, impl=impl)
        return out[0] if isinstance(out, tuple) else out

    def impls(self) -> list[str]:
        """The implementations that a GPU may take."""
        return [impl for impl in dispatch.PLATFORMS["gpu"] if impl in dispatch.IMPLEMENTATIONS[self.kernel]]


def _kappa(x: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """RWKV-7's: erase along a unit key, and put as much of it back as its gate says."""
    gate = jax.nn.sigmoid(x["b"].astype(jnp.float32)).astype(x["b"].dtype)
    return x | {"a": -x["a"], "b": x["a"] * gate}


UNIT = QKV | {"q": ("HK", "unit"), "k": ("HK", "unit")}
STATE = lambda n: lambda size: 2 * n * size.K * size.V  # noqa: E731
"""``n`` times a state is read or written by an outer product."""
ONE_KEY_HEAD = QKV | {"k": ("1K", "norm"), "v": ("1V", "plain")}


def _of_lists(keys: int, queries: int, n: int, arguments: Mapping[str, tuple[str, str]], few: int = 2) -> Op:
    """Sparse attention to listed blocks; of its own a query sees half."""
    work = lambda size: 2 * (size.K + size.V) * keys * (min(n, size.T / keys) - 0.5)  # noqa: E731
    return Op("sparse_attention", arguments, work, lists=(keys, queries, n), few=few)


OPS: dict[str, Op] = {
    "gla none": Op("gla", UNIT, STATE(2)),
    "gla scalar": Op("gla", UNIT | {"g": ("H", "decay")}, STATE(2)),
    "gla vector": Op("gla", UNIT | {"g": ("HK", "gla's decay")}, STATE(2)),
    "delta none": Op("delta_rule", UNIT | {"beta": ("H", "sigmoid")}, STATE(3)),
    "delta scalar": Op("delta_rule", UNIT | {"beta": ("H", "sigmoid"), "g": ("H", "decay")}, STATE(3)),
    "delta vector": Op("delta_rule", UNIT | {"beta": ("H", "sigmoid"), "g": ("HK", "decay")}, STATE(3)),
    "dplr": Op(
        "dplr",
        UNIT | {"a": ("HK", "unit"), "b": ("HK", "plain"), "g": ("HK", "rwkv's decay")},
        STATE(4),
        tie=_kappa,
    ),
    "mlstm": Op("mlstm", UNIT | {"i": ("H", "float"), "f": ("H", "open")}, STATE(2)),
    "selective_scan": Op(
        "selective_scan",
        {"x": ("D", "plain"), "dt": ("D", "short step"), "B": ("N", "float"), "C": ("N", "float")},
        parameters={"A": ("DN", "rate")},
    ),
    "linear_scan": Op("linear_scan", {"a": ("D", "sigmoid"), "x": ("D", "plain")}),
    "short_conv": Op(
        "short_conv", {"x": ("D", "plain")}, parameters={"w": ("4D", "float")}, static={"activation": "silu"}
    ),
    f"window {WINDOW}": Op(
        "sparse_attention",
        QKV,
        lambda size: 2 * (size.K + size.V) * min(WINDOW, size.T / 2),
        static={"mask": Window(WINDOW)},
    ),
    "blocks 64": _of_lists(64, 64, 16, QKV),
    "blocks 64 a token": _of_lists(64, 1, 16, ONE_KEY_HEAD, few=8),  # as NSA lists them
    "blocks 512 a token": _of_lists(512, 1, 3, QKV),  # as MoBA
    "softmax": Op(
        "sparse_attention",
        QKV,
        lambda size: (size.K + size.V) * size.T,
        static={"mask": Window(2**30)},
    ),
    "slstm": Op("slstm", {"gates": ("H4K", "plain")}, lambda size: 8 * size.K**2, parameters={"r": ("H4KK", "small")}),
}
"""The ops, by the names of ``--ops``."""


def inputs(op: Op, size: Size, seed: int) -> dict[str, jax.Array]:
    """Arguments, drawn anew for each seed."""
    named = {name: ((size.B, size.T, *size.of(axes)), source) for name, (axes, source) in op.arguments.items()}
    named |= {name: (size.of(axes), source) for name, (axes, source) in op.parameters.items()}
    drawn = {
        name: SOURCES[source](jax.random.normal(jax.random.key(100 * seed + n), shape))
        for n, (name, (shape, source)) in enumerate(named.items())
    }
    return op.tie(drawn)


def cotangent(op: Op, x: dict[str, jax.Array], seed: int) -> jax.Array:
    """What is asked of the gradients: ``sum(y dy)``, for a normal dy of y's shape."""
    y = jax.eval_shape(lambda x: op.run("xla", x), x)
    return jax.random.normal(jax.random.key(100 * seed + 99), y.shape).astype(y.dtype)


def least(op: Op, size: Size, x: Mapping[str, Any], dy: Any, backward: bool) -> tuple[int, int]:
    """Bytes of the arguments and the results, each once a pass, and operations: what nothing can do without.

    Of arrays or of their shapes. A backward pass reads the arguments again and writes as much; its products are twice
    those of the forward pass.
    """
    given, made = (sum(a.size * a.dtype.itemsize for a in arrays) for arrays in (x.values(), [dy]))
    products = int(size.B * size.T * size.H * op.work(size))
    return (3 * given + 2 * made, 3 * products) if backward else (given + made, products)


def fewer(op: Op, size: Size) -> Size:
    """What of a size is held to the definition: it runs token by token."""
    return size._replace(T=min(size.T, FEW), H=min(size.H, op.few), B=1)
