"""How calls are timed."""

import time
from collections.abc import Callable
from typing import Any

import jax


def timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes until its result is there."""
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began
