"""Ops in the place where a model has them: projections and norms before, a projection after.

In place, because there XLA chooses the layout of what a kernel reads: an array that arrives as ``[B, T, H, K]`` may
have to be copied first.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ... import kernels
from ...kernels.sparse_attention import Window

DIM = 512
"""Width of the model around the op."""


class Size(NamedTuple):
    """Sizes of an op's arguments, by the glossary of ``kernels``."""

    T: int = 8192
    H: int = 16
    K: int = 128
    V: int = 128
    B: int = 1


class Workload(NamedTuple):
    """An op with what goes into it."""

    call: Callable
    arguments: dict[str, tuple[str, str]]
    """Of each argument: its axes after B and T, and where it comes from, a key of ``SOURCES``."""


def _norm(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    return (x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)).astype(jnp.bfloat16)


SOURCES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "plain": lambda x: x.astype(jnp.bfloat16),
    "norm": _norm,
    "gate": lambda x: -jax.nn.softplus(x.astype(jnp.float32)),
    "sigmoid": lambda x: jax.nn.sigmoid(x.astype(jnp.float32)),
    "float": lambda x: x.astype(jnp.float32),
}

QKV = {"q": ("HK", "norm"), "k": ("HK", "norm"), "v": ("HV", "plain")}
OPS: dict[str, Workload] = {
    "gla scalar": Workload(kernels.gla, QKV | {"g": ("H", "gate")}),
    "gla vector": Workload(kernels.gla, QKV | {"g": ("HK", "gate")}),
    "delta scalar": Workload(kernels.delta_rule, QKV | {"beta": ("H", "sigmoid"), "g": ("H", "gate")}),
    "delta vector": Workload(kernels.delta_rule, QKV | {"beta": ("H", "sigmoid"), "g": ("HK", "gate")}),
    "window 1024": Workload(lambda **args: (kernels.sparse_attention(mask=Window(1024), **args),), QKV),
    "mlstm": Workload(kernels.mlstm, QKV | {"i": ("H", "float"), "f": ("H", "float")}),
}
"""What ``subquad profile tpu`` knows; a new one is a line."""


def find(name: str) -> Workload:
    """An op of this library or of a peer."""
    from .peers import PEERS  # which are made of this module's parts

    return (OPS | PEERS)[name]


class Point(NamedTuple):
    """One thing to compile."""

    op: str
    size: Size
    backward: bool

    def program(self) -> tuple[Callable, Any]:
        """The function to compile, and the shapes of its arguments: the input and the weights."""
        call, arguments = find(self.op)
        sizes = self.size._asdict()
        axes = {name: tuple(sizes[axis] for axis in names) for name, (names, _) in arguments.items()}
        V, H, D = self.size.V, self.size.H, DIM
        weights = {name: jax.ShapeDtypeStruct((D, math.prod(shape)), jnp.bfloat16) for name, shape in axes.items()}
        weights["out"] = jax.ShapeDtypeStruct((H * V, D), jnp.bfloat16)
        x = jax.ShapeDtypeStruct((self.size.B, self.size.T, D), jnp.bfloat16)

        def forward(x, weights):
            def made(name):
                return SOURCES[arguments[name][1]]((x @ weights[name]).reshape(*x.shape[:2], *axes[name]))

            y = call(**{name: made(name) for name in arguments}, impl="pallas_tpu")[0]
            return y.reshape(*x.shape[:2], -1) @ weights["out"]

        if not self.backward:
            return forward, (x, weights)

        def both(x, weights, dy):
            y, vjp = jax.vjp(forward, x, weights)
            return y, vjp(dy)

        return both, (x, weights, x)

    def least_bytes(self) -> int:
        """Bytes of the op's arguments and outputs, each once a pass: what any implementation moves."""
        sizes = self.size._asdict()
        total = 0
        for names, source in find(self.op).arguments.values():
            entries = math.prod(sizes[axis] for axis in names)
            total += entries * SOURCES[source](jnp.zeros((1, 1))).dtype.itemsize
        out = self.size.H * self.size.V * 2
        tokens = self.size.B * self.size.T
        return tokens * (total + out + (2 * total + out if self.backward else 0))
