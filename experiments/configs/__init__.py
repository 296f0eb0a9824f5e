"""Comparison presets: Python functions that return a ``Comparison``."""

from collections.abc import Callable

from ..compare.settings import Comparison
from .default import default
from .modular import modular
from .mqar_one_layer import mqar_one_layer
from .parity import parity
from .selective_copying import selective_copying
from .smoke import smoke
from .window_hybrid import window_hybrid

COMPARISONS: dict[str, Callable[[], Comparison]] = {
    preset.__name__: preset
    for preset in (default, smoke, parity, modular, mqar_one_layer, selective_copying, window_hybrid)
}
"""What ``subquad compare --preset`` takes."""
