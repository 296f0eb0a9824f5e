"""flash-linear-attention, whose Triton kernels run under PyTorch, in ``subquad profile gpu``."""

import importlib
from collections.abc import Callable, Mapping
from importlib import util
from typing import Any

import jax
import numpy as np

from .measure import Contestant
from .ops import WINDOW

Adapter = Callable[[Callable, Mapping[str, Any]], Any]


def _rwkv7(call: Callable, x: Mapping[str, Any]) -> Any:
    """As its layer calls it: the bound of the decay lets it take faster products."""
    named = {name: x[name] for name in ("k", "v", "a", "b")}
    return call(r=x["q"], w=x["g"], **named, scale=1.0, safe_gate=True, lower_bound=-0.6065306597126334, chunk_size=64)[
        0
    ]


plain: Adapter = lambda call, x: call(**x)[0]  # noqa: E731
FLA: Mapping[str, tuple[str, str, Adapter]] = {
    "gla none": ("fla.ops.linear_attn", "chunk_linear_attn", lambda call, x: call(**x, normalize=False)[0]),
    "gla scalar": ("fla.ops.simple_gla", "chunk_simple_gla", plain),
    "gla vector": ("fla.ops.gla", "chunk_gla", plain),
    "delta none": ("fla.ops.delta_rule", "chunk_delta_rule", plain),
    "delta scalar": ("fla.ops.gated_delta_rule", "chunk_gated_delta_rule", plain),
    "delta vector": ("fla.ops.kda", "chunk_kda", plain),
    "dplr": ("fla.ops.rwkv7", "chunk_rwkv7", _rwkv7),
    "linear_scan": ("fla.ops.hgrn", "fused_recurrent_hgrn", lambda call, x: call(x["x"], x["a"].log())[0]),
    "short_conv": (
        "fla.modules.convolution", "causal_conv1d", lambda call, x: call(x["x"], x["w"].T, activation="silu")[0]
    ),
    f"window {WINDOW}": ("fla.ops.attn", "parallel_attn", lambda call, x: call(**x, window_size=WINDOW)),
    "softmax": ("fla.ops.attn", "parallel_attn", lambda call, x: call(**x)),
}  # fmt: skip
"""Where flash-linear-attention has the ops, and how it takes our arguments."""


def contestants(name: str) -> dict[str, Contestant]:
    """flash-linear-attention, if it is installed and has the op."""
    if name not in FLA or not all(map(util.find_spec, ("fla", "torch"))):
        return {}
    module, function, adapter = FLA[name]
    return {"fla": of_torch(lambda x: adapter(getattr(importlib.import_module(module), function), x))}


def device() -> str:
    """Where PyTorch computes."""
    return "cuda" if importlib.import_module("torch").cuda.is_available() else "cpu"


def of_torch(function: Callable[[Mapping[str, Any]], Any]) -> Contestant:
    """A function of tensors to y."""
    torch: Any = importlib.import_module("torch")
    kinds, where = {"bfloat16": torch.bfloat16, "float32": torch.float32}, device()

    def tensor(a: jax.Array) -> Any:
        return torch.from_numpy(np.array(a, np.float32)).to(where, kinds[a.dtype.name])

    def convert(x: Any) -> Any:
        return {n: tensor(a).requires_grad_() for n, a in x.items()} if isinstance(x, dict) else tensor(x)

    def program(backward: bool) -> Callable:
        def forward(x, dy):
            with torch.no_grad():
                return [function(x)]

        def both(x, dy):
            y = function(x)
            return torch.autograd.grad(y, [x[n] for n in sorted(x)], dy.to(y.dtype))

        return both if backward else forward

    def wait(_: Any) -> None:
        if where == "cuda":
            torch.cuda.synchronize()

    return Contestant(program, convert, wait, lambda out: [a.detach().double().cpu().numpy() for a in out])
