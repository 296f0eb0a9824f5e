"""Every mixer's equations as its paper has them, written out token by token: ``definitions/<name in the table>.py``.

``definition(config, params, x)`` takes parameters as float64 arrays under their attribute names and one sequence
``[T, D]``. Two optional names say how else the mixer is tried: ``SWITCHED``, settings of the variant in which all is
switched the other way round (every boolean and the short filter are switched already), and ``VARIANTS``, settings of
further variants by name. ``TOLERANCE``, if any, is how far results may lie apart that sum in different orders,
``NOISE`` how far parameters are moved off their initial values; ``CHOOSES`` says that a mixer chooses by comparing what
rounding may change.
"""

import importlib
from types import ModuleType


def of(mixer: str) -> ModuleType:
    """The definition of a mixer of the table."""
    return importlib.import_module(f"{__name__}.{mixer}")
