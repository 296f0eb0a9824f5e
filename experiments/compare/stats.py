"""The statistics of a comparison: intervals over seeds, paired between architectures."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import stats

SEEDS_FOR_A_CLAIM = 5
"""Fewer fresh seeds than this never name a winner."""


class Interval(NamedTuple):
    """A mean with its confidence interval; low and high are NaN where one seed gives none."""

    mean: float
    low: float
    high: float

    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's t interval of a mean: ``mean ± t(n - 1) * sd / sqrt(n)``, sd with n - 1.

    Args:
      values: one figure a seed.
      confidence: the coverage.

    Returns:
      The mean and the interval's ends.

    Raises:
      ValueError: there is no value.
    """
    if not values:
        raise ValueError("t_interval: no values")
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1 or not math.isfinite(mean):
        return Interval(mean, math.nan, math.nan)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * sd / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def paired_interval(a: Mapping[int, float], b: Mapping[int, float], confidence: float = 0.95) -> Interval:
    """The t interval of ``a - b`` over the seeds that both ran: the same seed saw the same data in the same order.

    Args:
      a: seed to figure.
      b: seed to figure.
      confidence: the coverage.

    Returns:
      The mean difference and its interval.

    Raises:
      ValueError: a and b share no seed.
    """
    shared = sorted(a.keys() & b.keys())
    if not shared:
        raise ValueError("paired_interval: the two share no seed")
    return t_interval([a[seed] - b[seed] for seed in shared], confidence)


class Verdict(NamedTuple):
    """Who leads, whether that may be called a win, and why."""

    leader: str
    claimed: bool
    reason: str
    differences: dict[str, Interval]


def verdict(figures: Mapping[str, Mapping[int, float]], higher_is_better: bool) -> Verdict:
    """Names the leader of a task; claims a win only from enough seeds and intervals that exclude 0.

    The claim is "better than every other one", so each paired 95% t interval of the leader's lead must lie above 0; as
    all must hold at once, no correction for their number is due.

    Args:
      figures: architecture to (fresh seed to test figure); a diverged run's figure is its worst value.
      higher_is_better: the metric's direction.

    Returns:
      The leader by mean, whether the win is claimed, the reason, and the lead over every other one (positive: better).
    """
    sign = 1.0 if higher_is_better else -1.0
    means = {name: sign * math.fsum(seeds.values()) / len(seeds) for name, seeds in figures.items()}
    leader = max(means, key=lambda name: means[name] if math.isfinite(means[name]) else -math.inf)
    signed = {name: {seed: sign * x for seed, x in seeds.items()} for name, seeds in figures.items()}
    differences = {name: paired_interval(signed[leader], signed[name]) for name in figures if name != leader}
    fewest = min(len(seeds) for seeds in figures.values())
    if not differences:
        return Verdict(leader, False, "nothing to compare with", differences)
    if fewest < SEEDS_FOR_A_CLAIM:
        reason = f"{fewest} fresh seeds; a claim needs {SEEDS_FOR_A_CLAIM}"
        return Verdict(leader, False, reason, differences)
    if ties := [name for name, lead in differences.items() if not lead.low > 0]:
        return Verdict(
            leader, False, f"its paired 95% t interval does not exclude 0 against {', '.join(ties)}", differences
        )
    return Verdict(leader, True, f"every paired 95% t interval over {fewest} fresh seeds excludes 0", differences)
