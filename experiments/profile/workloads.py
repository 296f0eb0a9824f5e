"""Ops in the place where a model has them: projections and norms before, a projection after.

In place, because there XLA chooses the layout of what a kernel reads: an array that arrives as ``[B, T, H, K]`` may
have to be copied first.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ... import kernels
from ...kernels.sparse_attention import Blocks, Window
from . import peers

DIM = 512
"""Width of the model around the op."""
REGISTER = 8 * 128
"""Entries of a vector register."""


class Size(NamedTuple):
    """Sizes of an op's arguments, by the glossary of ``kernels``."""

    T: int = 8192
    H: int = 16
    K: int = 128
    V: int = 128
    B: int = 1

    def of(self, axes: str) -> tuple[int, ...]:
        """The sizes of axes; the D channels of ops that have no heads are H heads of K, and N is Mamba's."""
        sizes = self._asdict() | {"D": self.H * self.K, "N": 16}
        return tuple(int(axis) if axis.isdigit() else sizes[axis] for axis in axes)


class Workload(NamedTuple):
    """An op with what goes into it."""

    call: Callable
    arguments: dict[str, tuple[str, str]]
    """Of each argument: its axes after B and T, and where it comes from, a key of ``SOURCES``."""
    parameters: Mapping[str, tuple[str, str]] = MappingProxyType({})
    """The same of arguments that are not made of the tokens, with all their axes."""
    vector: tuple[str, tuple[int, int], tuple[int, int]] = ("", (0, 0), (0, 0))
    """What the vector unit must do: axes over which it works token by token, and for each entry of them the additions
    and multiplications, and the exponentials: in a forward pass, and in both. ``pallas_tpu.py`` counts them."""
    package: str = ""
    """Of a peer: what has to be installed for it."""

    def axes(self) -> set[str]:
        """All axes of the arguments."""
        return {axis for names, _ in self.arguments.values() for axis in names}


def _norm(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    return (x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)).astype(jnp.bfloat16)


SOURCES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "plain": lambda x: x.astype(jnp.bfloat16),
    "norm": _norm,
    "gate": lambda x: -jax.nn.softplus(x.astype(jnp.float32)),
    "rate": lambda x: -jnp.exp(x.astype(jnp.float32)),
    "step": lambda x: jax.nn.softplus(x.astype(jnp.float32)),
    "sigmoid": lambda x: jax.nn.sigmoid(x.astype(jnp.float32)),
    "float": lambda x: x.astype(jnp.float32),
}


def lists(size: int, queries: int, n: int, q: jax.Array, k: jax.Array) -> Blocks:
    """For so many queries their own block of ``size`` keys, and ``n - 1`` others, not the same for each key head."""
    first, head, entry = jnp.ogrid[: q.shape[1] : queries, : k.shape[2], : min(n, -(-k.shape[1] // size))]
    own = first // size
    number = jnp.where(entry == 0, own, (first // queries * 7 + head * 5 + entry * 11) % jnp.maximum(own, 1))
    return Blocks(jnp.repeat(size * number[None], q.shape[0], 0), size, queries)


def listed(size: int, q: jax.Array, k: jax.Array, v: jax.Array, **args) -> tuple[jax.Array]:
    """Attention of blocks of ``size`` queries to 16 blocks of as many keys."""
    return (kernels.sparse_attention(q, k, v, mask=lists(size, size, 16, q, k), **args),)


QKV = {"q": ("HK", "norm"), "k": ("HK", "norm"), "v": ("HV", "plain")}
OPS: dict[str, Workload] = {
    "gla scalar": Workload(kernels.gla, QKV | {"g": ("H", "gate")}),
    "gla vector": Workload(kernels.gla, QKV | {"g": ("HK", "gate")}),
    "delta scalar": Workload(kernels.delta_rule, QKV | {"beta": ("H", "sigmoid"), "g": ("H", "gate")}),
    "delta vector": Workload(kernels.delta_rule, QKV | {"beta": ("H", "sigmoid"), "g": ("HK", "gate")}),
    "window 1024": Workload(lambda **args: (kernels.sparse_attention(mask=Window(1024), **args),), QKV),
    "blocks 64": Workload(lambda **args: listed(64, **args), QKV),
    "blocks 128": Workload(lambda **args: listed(128, **args), QKV),
    "mlstm": Workload(kernels.mlstm, QKV | {"i": ("H", "float"), "f": ("H", "float")}),
    "dplr": Workload(kernels.dplr, QKV | {"a": ("HK", "norm"), "b": ("HK", "plain"), "g": ("HK", "gate")}),
    "linear_scan": Workload(
        kernels.linear_scan, {"a": ("D", "sigmoid"), "x": ("D", "plain")}, vector=("D", (2, 0), (5, 0))
    ),
    "selective_scan": Workload(
        kernels.selective_scan,
        {"x": ("D", "plain"), "dt": ("D", "step"), "B": ("N", "float"), "C": ("N", "float")},
        {"A": ("DN", "rate")},
        ("DN", (6, 1), (24, 2)),
    ),
    "short_conv": Workload(
        partial(kernels.short_conv, activation="silu"),
        {"x": ("D", "plain")},
        {"w": ("4D", "float")},
        ("D", (10, 2), (30, 4)),
    ),
    "slstm": Workload(kernels.slstm, {"gates": ("H4K", "plain")}, {"r": ("H4KK", "plain")}, ("HK", (18, 7), (57, 15))),
}
"""What ``subquad profile tpu`` knows; a new one is a line."""


PEERS = {
    "gla scalar deltanet-tpu": OPS["gla scalar"]._replace(call=peers.deltanet("chunk_gla"), package="deltanet-tpu"),
    "gla vector deltanet-tpu": OPS["gla vector"]._replace(call=peers.deltanet("chunk_gla"), package="deltanet-tpu"),
    "delta scalar deltanet-tpu": OPS["delta scalar"]._replace(call=peers.deltanet("chunk_gdn"), package="deltanet-tpu"),
    "delta vector deltanet-tpu": OPS["delta vector"]._replace(call=peers.deltanet("chunk_kda"), package="deltanet-tpu"),
    "delta vector tokamax": OPS["delta vector"]._replace(call=peers.tokamax_kda, package="tokamax"),
    "window 1024 splash": OPS["window 1024"]._replace(call=partial(peers.splash, 1024)),
}
"""The same of other libraries: the name of an op, and whose."""
WORKLOADS = {
    name: workload
    for op, own in OPS.items()
    for name, workload in ({op: own} | {name: peer for name, peer in PEERS.items() if name.startswith(op)}).items()
}
"""All: each op, and after it its peers."""


class Point(NamedTuple):
    """One thing to compile."""

    op: str
    size: Size
    backward: bool

    def program(self) -> tuple[Callable, Any]:
        """The function to compile, and the shapes of its arguments: the input and the weights."""
        call, arguments, parameters, *_ = WORKLOADS[self.op]
        axes = {name: self.size.of(names) for name, (names, _) in arguments.items()}
        V, H, D = self.size.V, self.size.H, DIM
        shapes = {name: (D, math.prod(shape)) for name, shape in axes.items()} | {"out": (H * V, D)}
        shapes |= {name: self.size.of(names) for name, (names, _) in parameters.items()}
        weights = {name: jax.ShapeDtypeStruct(shape, jnp.bfloat16) for name, shape in shapes.items()}
        x = jax.ShapeDtypeStruct((self.size.B, self.size.T, D), jnp.bfloat16)

        def forward(x, weights):
            def made(name):
                return SOURCES[arguments[name][1]]((x @ weights[name]).reshape(*x.shape[:2], *axes[name]))

            given = {name: SOURCES[source](weights[name]) for name, (_, source) in parameters.items()}
            y = call(**{name: made(name) for name in arguments}, **given, impl="pallas_tpu")[0]
            return y.reshape(*x.shape[:2], -1) @ weights["out"]

        if not self.backward:
            return forward, (x, weights)

        def both(x, weights, dy):
            y, vjp = jax.vjp(forward, x, weights)
            return y, vjp(dy)

        return both, (x, weights, x)

    def least_bytes(self) -> int:
        """Bytes of the op's arguments and outputs, each once a pass: what any implementation moves."""
        total = 0
        for names, source in WORKLOADS[self.op].arguments.values():
            total += math.prod(self.size.of(names)) * SOURCES[source](jnp.zeros((1, 1))).dtype.itemsize
        out = self.size.H * self.size.V * 2
        tokens = self.size.B * self.size.T
        return tokens * (total + out + (2 * total + out if self.backward else 0))

    def least_vector(self) -> tuple[int, int]:
        """Registers of additions and multiplications, and of exponentials, that any implementation works through."""
        axes, *passes = WORKLOADS[self.op].vector
        entries = self.size.B * self.size.T * math.prod(self.size.of(axes))
        additions, exponentials = passes[self.backward]
        return additions * entries // REGISTER, exponentials * entries // REGISTER
