"""Where the TPU kernels run: on a TPU, in simulation on any machine, or compiled for a TPU that is elsewhere."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal

import jax

from .. import device

GENERATIONS = {
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
}
"""By JAX's names: the generations that the kernels are compiled for in the tests."""

_simulated: ContextVar[bool] = ContextVar("simulated", default=False)


@contextlib.contextmanager
def simulate_tpu(*, detect_races: bool = True, uninitialized_memory: Literal["nan", "zero"] = "nan") -> Iterator[None]:
    """Within this context the machine counts as a TPU, whose memory and copies are simulated on the CPU.

    That takes about 2 ms a grid step, and is for tests. ``impl="auto"`` takes the TPU kernels too. What is to be
    simulated must be both traced and run within the context.

    Args:
      detect_races: raise where accesses and copies race.
      uninitialized_memory: what memory holds that nobody wrote.
    """
    from jax.experimental.pallas import tpu as pltpu

    params = pltpu.InterpretParams(detect_races=detect_races, uninitialized_memory=uninitialized_memory)
    token = _simulated.set(True)
    try:
        with pltpu.force_tpu_interpret_mode(params):
            yield
    finally:
        _simulated.reset(token)
        pltpu.reset_tpu_interpret_mode_state()


def kind() -> str | None:
    """The TPU that is traced for: ``"simulated"``, an abstract mesh's device or this machine's; None if there is none.

    A device goes by JAX's name for it.
    """
    return "simulated" if _simulated.get() else device.kind("tpu", "TPU")


def unsupported() -> str | None:
    """Why no TPU kernel runs here, in words, or None."""
    found = kind()
    if found is None:
        return f"this is a {jax.default_backend()}, not a TPU (kernels.simulate_tpu() runs it anywhere, slowly)"
    if found != "simulated" and found not in GENERATIONS:
        return f"no test covers {found}; those covered are {', '.join(dict.fromkeys(GENERATIONS.values()))}"
    return None


def unsupported_heads(q, k, v) -> str | None:
    """The same for kernels over heads: why none runs here, or not on arrays like these."""
    if reason := unsupported():
        return reason
    if not {x.dtype.name for x in (q, k, v)} <= {"float32", "bfloat16"}:
        return "q, k and v must be float32 or bfloat16"
    if max(q.shape[3], v.shape[3]) > 256:
        return f"K and V may be at most 256, not {q.shape[3]} and {v.shape[3]}"
    return None
