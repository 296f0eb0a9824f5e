"""Comparison presets: Python functions that return a ``Comparison``."""

from collections.abc import Callable

from ..compare.settings import Comparison
from .default import default
from .smoke import smoke

COMPARISONS: dict[str, Callable[[], Comparison]] = {"default": default, "smoke": smoke}
"""What ``subquad compare --preset`` takes."""
