"""What a cell of a comparison must still run: a pure function of what has finished, so that any run can continue it.

A cell is one architecture on one task at one width. First every learning rate of the grid with every selection seed;
while the best is at an edge, one more beyond it, at most twice; then the fresh seeds at the chosen rate.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

MAX_GROWTH = 2
MAX_RATIO = 2.5
SELECTION_SEED = 1000
"""Selection seeds count from here and fresh ones from 0, so that they never meet."""


class Trial(NamedTuple):
    """One training run of a cell."""

    stage: str
    lr: float
    seed: int


class Choice(NamedTuple):
    """The learning rate that selection chose."""

    lr: float
    at_edge: bool
    grid: tuple[float, ...]
    scores: dict[float, float]


def rounded(lr: float) -> float:
    """A learning rate of three significant digits: what a grown grid holds, and names print."""
    return float(f"{lr:.3g}")


def selection_seeds(count: int) -> tuple[int, ...]:
    """The seeds that choose the learning rate."""
    return tuple(SELECTION_SEED + i for i in range(count))


def due(
    grid: Sequence[float], selection: int, fresh: int, finished: Mapping[Trial, float]
) -> tuple[list[Trial], Choice | None]:
    """What to run now, given the validation losses of what has finished.

    Args:
      grid: the learning rates that every architecture tries, ascending.
      selection: how many seeds each learning rate gets in selection.
      fresh: how many seeds the chosen learning rate gets.
      finished: validation loss by trial; infinite or NaN where the run diverged.

    Returns:
      The trials not yet finished that can run now, and the choice once selection is over.
    """
    seeds = selection_seeds(selection)
    lrs = sorted(grid)
    for _ in range(MAX_GROWTH + 1):
        missing = [t for lr in lrs for seed in seeds if (t := Trial("select", lr, seed)) not in finished]
        if missing:
            return missing, None
        scores = {lr: _score([finished[Trial("select", lr, seed)] for seed in seeds]) for lr in lrs}
        best = min(lrs, key=lambda lr: (scores[lr], lr))
        beyond = _beyond(lrs, best)
        if beyond is None or len(lrs) == len(grid) + MAX_GROWTH:
            break
        lrs = sorted([*lrs, beyond])
    choice = Choice(best, beyond is not None, tuple(lrs), scores)
    if not math.isfinite(scores[best]):
        return [], choice
    return [t for seed in range(fresh) if (t := Trial("fresh", best, seed)) not in finished], choice


def _score(losses: Sequence[float]) -> float:
    """The mean validation loss; one diverged seed spoils the learning rate."""
    return math.fsum(losses) / len(losses) if all(map(math.isfinite, losses)) else math.inf


def _beyond(lrs: Sequence[float], best: float) -> float | None:
    """The next learning rate outward if the best is at an edge."""
    if len(lrs) < 2:
        return None
    ratio = min(MAX_RATIO, lrs[1] / lrs[0])
    if best == lrs[0]:
        return rounded(best / ratio)
    ratio = min(MAX_RATIO, lrs[-1] / lrs[-2])
    return rounded(best * ratio) if best == lrs[-1] else None
