"""What an op's test cases are made of. Each op's ``cases.py`` lists its own; the tests and the benchmarks read them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = dict[str, Any]
"""NumPy arrays, or tuples of them, by the name of the argument."""


@dataclass(frozen=True)
class Case:
    """One input of an op, and how far an implementation may be from the definition.

    An error is the norm of the difference over the norm of the definition's value, the definition being run in float64
    on the inputs as rounded to ``dtype``. It is taken for y, for the final state, and for each gradient by itself.
    """

    name: str
    make: Callable[[np.random.Generator], Arrays]
    """The array arguments of the public function, in float64 (``segment_ids`` integer)."""
    static: dict[str, Any] = field(default_factory=dict)
    """The arguments that are not arrays."""
    dtype: str = "float32"
    """What the arrays are cast to; log-gates ``g`` stay float32 when this is bfloat16."""
    forward: float = 2e-6
    """The largest error of y and of the final state."""
    gradient: float = 1e-5
    """The largest error of a gradient."""
    gate_gradient: float | None = None
    """The largest error of the gradient of ``g``, where it differs from ``gradient``."""
    slow: bool = False
    """Left to the full run of the tests."""
