"""Where the GPU kernels run: on a Hopper GPU, interpreted on any machine, or lowered for a GPU that is elsewhere."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax

from .. import device

KINDS = ("H100", "H200", "H800", "GH200")
"""What a covered device's name by JAX contains: those with the matrix instructions (wgmma) of Hopper."""
PASSED: dict[str, tuple[str, ...]] = {}
"""The ops whose cases (``tests/test_gpu.py``) passed on a real card, by JAX's name for it: ``impl="auto"`` takes a GPU
kernel for these alone. None has met a card yet."""

_interpreted: ContextVar[bool] = ContextVar("interpreted", default=False)
_auto: ContextVar[bool | None] = ContextVar("auto", default=None)


@contextlib.contextmanager
def interpret_gpu(*, detect_races: bool = True) -> Iterator[None]:
    """Within this context the machine counts as a GPU, whose threads, memory and copies are interpreted on the CPU.

    That is for tests. What is to be interpreted must be both traced and run within the context.

    Args:
      detect_races: raise where accesses and copies race.
    """
    from jax.experimental.pallas import mosaic_gpu as plgpu

    token = _interpreted.set(True)
    try:
        with plgpu.force_gpu_interpret_mode(plgpu.InterpretGPUParams(detect_races=detect_races)):
            yield
    finally:
        _interpreted.reset(token)


def kind() -> str | None:
    """The GPU that is traced for: ``"interpreted"``, an abstract mesh's device or this machine's; None without one.

    A device goes by JAX's name for it.
    """
    return "interpreted" if _interpreted.get() else device.kind("gpu", "NVIDIA")


def multiprocessors() -> int:
    """Those of the GPU that is traced for: as many blocks run at a time. One where it is interpreted."""
    return 1 if _interpreted.get() else device.cores()


def unsupported() -> str | None:
    """Why no GPU kernel runs here, in words, or None."""
    found = kind()
    if found is None:
        return f"this is a {jax.default_backend()}, not a GPU (kernels.interpret_gpu() runs it anywhere, slowly)"
    if found != "interpreted" and not any(name in found for name in KINDS):
        return f"the kernels are for Hopper ({', '.join(KINDS)}), not {found}"
    return None


@contextlib.contextmanager
def auto_takes(kernels: bool) -> Iterator[None]:
    """Within this context ``impl="auto"`` takes every GPU kernel, whatever a card said of it, or none.

    That is to measure one beside the other, in a model. It matters while a function is traced.
    """
    token = _auto.set(kernels)
    try:
        yield
    finally:
        _auto.reset(token)


def passed(op: str) -> bool:
    """Whether auto may take the op's kernel: its cases passed on the card that is traced for."""
    chosen = _auto.get()
    return op in PASSED.get(kind() or "", ()) if chosen is None else chosen


def unsupported_heads(q, k, v, most: int = 256) -> str | None:
    """The same for kernels over heads: why none runs here, or not on arrays like these, whose widths have a limit."""
    if reason := unsupported():
        return reason
    if {x.dtype.name for x in (q, k, v)} != {"bfloat16"}:
        return "q, k and v must be bfloat16"
    if max(q.shape[3], v.shape[3]) > most:
        return f"K and V may be at most {most}, not {q.shape[3]} and {v.shape[3]}"
    return None
