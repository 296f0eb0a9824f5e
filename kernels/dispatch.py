"""Chooses the implementation that runs an op.

An op's folder holds ``prepare(...)``, which takes the public arguments, checks them and fills the defaults, and
implementations: modules with ``run(**prepared)`` and ``unsupported(**prepared) -> str | None``. An implementation is
imported when first asked for, so that a GPU or TPU toolchain is needed only where it is used. One made of kernels also
says which axes its arrays have, by ``axes(**prepared)`` and ``OUTPUTS``: see ``sharding.per_shard``.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import jax

from . import gpu, tpu
from .sharding import per_shard

IMPLEMENTATIONS: dict[str, tuple[str, ...]] = {
    "delta_rule": ("pallas_tpu", "pallas_gpu", "xla", "reference"),
    "diagonal_ssm": ("xla", "reference"),
    "dplr": ("pallas_tpu", "pallas_gpu", "xla", "reference"),
    "gla": ("pallas_tpu", "pallas_gpu", "xla", "reference"),
    "linear_scan": ("pallas_tpu", "pallas_gpu", "xla", "reference"),
    "log_linear": ("xla", "reference"),
    "long_conv": ("xla", "reference"),
    "longhorn": ("xla", "reference"),
    "mlstm": ("pallas_tpu", "pallas_gpu", "xla", "reference"),
    "selective_scan": ("pallas_tpu", "pallas_gpu", "xla", "reference"),
    "short_conv": ("pallas_tpu", "pallas_gpu", "xla", "reference"),
    "slstm": ("pallas_tpu", "pallas_gpu", "xla", "reference"),
    "sparse_attention": ("pallas_tpu", "pallas_gpu", "xla", "reference"),
    "ttt_linear": ("xla", "reference"),
}
"""What each op has. The order is auto's preference among those its platform allows."""

PLATFORMS: dict[str, tuple[str, ...]] = {
    "tpu": ("pallas_tpu", "xla"),
    "gpu": ("pallas_gpu", "xla"),
    "cpu": ("xla",),
}
"""What auto may take on a platform. ``reference`` is the definition: it runs only when it is named."""

PORTABLE = ("xla", "reference")
"""What runs on any machine."""


_taken: ContextVar[dict[str, str] | None] = ContextVar("taken", default=None)


@contextmanager
def recorded() -> Iterator[dict[str, str]]:
    """Within this context: the implementation taken by each op that is traced or called, by the op's name."""
    taken: dict[str, str] = {}
    token = _taken.set(taken)
    try:
        yield taken
    finally:
        _taken.reset(token)


def load(op: str, impl: str) -> ModuleType:
    """The module ``kernels/<op>/<impl>.py``."""
    return importlib.import_module(f".{op}.{impl}", __package__)


def prepare(op: str, *args, **kwargs) -> dict[str, Any]:
    """The arguments of ``op``, checked and completed."""
    return importlib.import_module(f".{op}", __package__).prepare(*args, **kwargs)


def platform() -> str:
    """What is traced for: this machine's kind of device, or what is simulated or compiled for."""
    return "tpu" if tpu.kind() else "gpu" if gpu.kind() else jax.default_backend()


def candidates(op: str) -> list[str]:
    """The implementations that auto considers on this platform, best first: no GPU kernel before it met a card."""
    allowed = PLATFORMS.get(platform(), ("xla",))
    untried = () if gpu.passed(op) else ("pallas_gpu",)
    return [name for name in allowed if name in IMPLEMENTATIONS[op] and name not in untried]


def call(op: str, impl: str, **prepared):
    """Runs ``op`` by ``impl``: auto takes the first candidate that supports the arguments; a name runs or raises."""
    if impl == "auto":
        reasons = []
        for name in candidates(op):
            module = load(op, name)
            reason = module.unsupported(**prepared)
            if reason is None:
                return _run(op, name, module, prepared)
            reasons.append(f"{name}: {reason}")
        raise ValueError(f"{op}: no implementation supports these arguments ({'; '.join(reasons)})")
    if impl not in IMPLEMENTATIONS[op]:
        raise ValueError(f"{op}: there is no impl={impl!r}; choose from auto, {', '.join(IMPLEMENTATIONS[op])}")
    module = load(op, impl)
    if reason := module.unsupported(**prepared):
        raise ValueError(f"{op}: impl={impl!r} cannot run this: {reason}")
    return _run(op, impl, module, prepared)


def _run(op: str, impl: str, module: ModuleType, prepared: dict):
    if (taken := _taken.get()) is not None:
        taken[op] = impl
    if impl in PORTABLE:
        return module.run(**prepared)
    return per_shard(module.run, prepared, module.axes(**prepared), module.OUTPUTS)


def explain(op: str, *args, **kwargs) -> str:
    """Says which implementation ``impl="auto"`` takes for these arguments of ``op``, and why not the others.

    Args:
      op: the op's name, such as ``"gla"``.
      *args: the op's own arguments, as in the call to be explained.
      **kwargs: the same, by keyword.

    Returns:
      One line an implementation, such as ``xla: taken``.

    Raises:
      ValueError: there is no such op, or the op refuses the arguments.
    """
    if op not in IMPLEMENTATIONS:
        raise ValueError(f"there is no op {op!r}; choose from {', '.join(IMPLEMENTATIONS)}")
    prepared = prepare(op, *args, **kwargs)
    considered, taken, lines = candidates(op), None, []
    for name in dict.fromkeys([*considered, *IMPLEMENTATIONS[op]]):
        if name not in considered:
            lines.append(f"{name}: only by name on {platform()}")
        elif reason := load(op, name).unsupported(**prepared):
            lines.append(f"{name}: {reason}")
        else:
            lines.append(f"{name}: {'supported, after ' + taken if taken else 'taken'}")
            taken = taken or name
    return "\n".join(lines)
