"""A hybrid of window attention and a linear layer against each alone, at equal state."""

from dataclasses import replace

from ..compare.settings import Comparison
from .default import mqar

WINDOW = 16
ARCHS = (
    f"transformer+window={WINDOW}",
    f"transformer+window={WINDOW}+conv",
    "gated_deltanet",
    f"window_hybrid+window={WINDOW}",
    f"window_hybrid+window={WINDOW}+conv",
)
"""With and without a convolution on the attention's side, since Gated DeltaNet has one."""


def window_hybrid() -> Comparison:
    """``subquad compare --preset window_hybrid``: about ten minutes on two cores.

    The default comparison's recall, where the oldest pairs lie beyond the window of most queries. Every layer of every
    architecture keeps as many bytes as one of window attention: 16 keys and values. Five fresh seeds, in pairs.
    """
    task = replace(mqar(), seeds=5, expectations=())
    return Comparison("window_hybrid", ARCHS, (task,))
