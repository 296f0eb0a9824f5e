"""Other libraries in ``subquad profile gpu``, where they are installed: each adapter takes our arguments by name."""

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from importlib import util
from typing import Any

import jax
import jax.numpy as jnp

from . import pytorch
from .measure import Contestant, of_jax
from .ops import WINDOW

Arrays = Mapping[str, jax.Array]


def of_kind(kind: str, *gates: str, **options: Any) -> Callable[[Callable, Arrays], jax.Array]:
    """An op of jax-linear-attention that has q, k and v and, by name, gates of ours."""
    return lambda call, x: call(kind, x["q"], x["k"], x["v"], **{name: x[name] for name in gates}, **options)[0]


def _mlstm(call: Callable, x: Arrays) -> jax.Array:
    """Its forget gate comes as a logarithm."""
    return call("mlstm", x["q"], x["k"], x["v"], g=jax.nn.log_sigmoid(x["f"]), i=x["i"])[0]


def _rwkv7(call: Callable, x: Arrays) -> jax.Array:
    """With the bound of the decay that its layers promise."""
    return call("rwkv7", x["q"], x["k"], x["v"], w=x["g"], a=x["a"], b=x["b"], lower_bound=-0.61)[0]


def _mamba1(call: Callable, x: Arrays) -> jax.Array:
    """Its kernel takes steps in the dtype of the inputs only."""
    return call("mamba1", x["C"], x["B"], x["x"], dt=x["dt"].astype(x["x"].dtype), a=x["A"])[0]


JLA: Mapping[str, Callable[[Callable, Arrays], jax.Array]] = {
    "gla none": lambda call, x: call("simple_gla", **x, g=jnp.zeros(x["q"].shape[:3]))[0],
    "gla scalar": of_kind("simple_gla", "g"),
    "gla vector": of_kind("gla", "g"),
    "delta none": of_kind("deltanet", "beta"),
    "delta scalar": of_kind("gated_deltanet", "beta", "g"),
    "delta vector": of_kind("kda", "beta", "g"),
    "dplr": _rwkv7,
    "mlstm": _mlstm,
    "selective_scan": _mamba1,
}
"""What jax-linear-attention calls the ops."""
JLA_KERNELS: Mapping[str, tuple[str, str, Callable[[Callable, Arrays], jax.Array]]] = {
    "short_conv": ("short_conv", "short_conv", lambda call, x: call(x["x"], x["w"].T, activation=True)),
    f"window {WINDOW}": ("attention", "flash_attention", lambda call, x: call(**x, sliding_window=WINDOW)),
    "softmax": ("attention", "flash_attention", lambda call, x: call(**x)),
}
"""Its ops that have no other path than a kernel."""
CUDNN: Mapping[str, dict[str, Any]] = {"softmax": {}, f"window {WINDOW}": {"local_window_size": (WINDOW - 1, 0)}}
"""FlashAttention of cuDNN, by JAX."""
PACKAGES = (
    "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "jax-linear-attention", "fla-core", "flash-linear-attention",
    "mamba-ssm", "torch", "triton",
)  # fmt: skip


def contestants(name: str) -> dict[str, Contestant]:
    """The peers that are installed and have the op."""
    found = {}
    if name in CUDNN and jax.default_backend() == "gpu":
        attend = partial(jax.nn.dot_product_attention, is_causal=True, implementation="cudnn", **CUDNN[name])
        found["cuDNN"] = of_jax(lambda x: attend(x["q"], x["k"], x["v"]))
    if util.find_spec("jla"):
        if name in JLA:
            jla = importlib.import_module("jla.ops")
            for impl in ("mosaic_gpu", "chunked"):
                call = partial(jla.linear_attention, impl=impl)
                found[f"jla {impl}"] = of_jax(partial(JLA[name], call))
        if name in JLA_KERNELS:
            module, function, adapter = JLA_KERNELS[name]
            call = getattr(importlib.import_module(f"jla.ops.mosaic_gpu.{module}"), function)
            found["jla mosaic_gpu"] = of_jax(partial(adapter, call))
    return found | pytorch.contestants(name)
