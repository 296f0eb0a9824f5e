"""Who takes part in ``subquad profile gpu``: functions of JAX, and other libraries where they are installed."""

import importlib
from collections.abc import Callable
from importlib import metadata, util
from typing import Any, NamedTuple

import jax
import numpy as np

JLA = {"gla scalar": "simple_gla", "gla vector": "gla", "delta scalar": "gated_deltanet", "delta vector": "kda"}
"""What jax-linear-attention calls the ops."""
FLA = {
    "gla scalar": ("fla.ops.simple_gla", "chunk_simple_gla"),
    "gla vector": ("fla.ops.gla", "chunk_gla"),
    "delta scalar": ("fla.ops.gated_delta_rule", "chunk_gated_delta_rule"),
    "delta vector": ("fla.ops.kda", "chunk_kda"),
}
"""Where flash-linear-attention has them."""


class Contestant(NamedTuple):
    """One implementation; its arrays may be another library's."""

    program: Callable[[bool], Callable[[Any], Any]]
    """Whether with a backward pass -> a function of the arguments, by name, to y or to the gradients of sum(y v)."""
    convert: Callable[[dict[str, jax.Array]], Any]
    wait: Callable[[Any], Any]
    numpy: Callable[[Any], list[np.ndarray]]
    """Results as arrays, in the order of the arguments' names."""
    same: bool = True
    """Whether it computes what the op does."""


def of_jax(function: Callable[[dict[str, jax.Array]], jax.Array], *, same: bool = True) -> Contestant:
    """A function of JAX arrays to y."""

    def program(backward: bool) -> Callable:
        def both(x):
            y, vjp = jax.vjp(function, x)
            return vjp(x["v"].astype(y.dtype))[0]

        return jax.jit(both if backward else function)

    arrays = lambda out: [np.asarray(x, np.float64) for x in jax.tree.leaves(out)]  # noqa: E731
    return Contestant(program, lambda x: x, jax.block_until_ready, arrays, same)


def contestants(op: str) -> dict[str, Contestant]:
    """The peers that are installed and have the op."""
    found = {}
    if jax.default_backend() == "gpu":
        found["attention, cuDNN"] = of_jax(
            lambda x: jax.nn.dot_product_attention(x["q"], x["k"], x["v"], is_causal=True, implementation="cudnn"),
            same=False,
        )
    if util.find_spec("jla") and op in JLA:
        linear_attention = importlib.import_module("jla.ops").linear_attention
        rest = lambda x: {name: a for name, a in x.items() if name not in ("q", "k", "v")}  # noqa: E731
        found["jax-linear-attention"] = of_jax(
            lambda x: linear_attention(JLA[op], x["q"], x["k"], x["v"], **rest(x))[0]
        )
    if util.find_spec("fla") and util.find_spec("torch") and op in FLA:
        found["fla"] = _of_torch(*FLA[op])
    return found


def _of_torch(module: str, name: str) -> Contestant:
    torch: Any = importlib.import_module("torch")
    function = getattr(importlib.import_module(module), name)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def convert(x: dict[str, jax.Array]) -> dict[str, Any]:
        kinds = {"bfloat16": torch.bfloat16, "float32": torch.float32}
        moved = {n: torch.from_numpy(np.asarray(a, np.float32)).to(device, kinds[a.dtype.name]) for n, a in x.items()}
        return {n: a.requires_grad_() for n, a in moved.items()}

    def program(backward: bool) -> Callable:
        def forward(x):
            with torch.no_grad():
                return [function(**x)[0]]

        def both(x):
            return torch.autograd.grad(function(**x)[0], [x[n] for n in sorted(x)], x["v"].detach())

        return both if backward else forward

    wait = lambda _: torch.cuda.synchronize() if device == "cuda" else None  # noqa: E731
    return Contestant(program, convert, wait, lambda out: [a.detach().float().cpu().numpy() for a in out])


def versions() -> dict[str, str]:
    """Of the peers that are installed, and of what they run on."""
    found = {}
    for name in (
        "jaxlib",
        "jax-cuda13-plugin",
        "jax-linear-attention",
        "fla-core",
        "flash-linear-attention",
        "torch",
        "triton",
    ):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
