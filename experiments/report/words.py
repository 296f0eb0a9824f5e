"""Figures as people read them, the same on the terminal and on the page."""

import math

from ..compare.stats import Interval
from ..compare.study import METRICS, Entry, Table


def figure(value: float) -> str:
    """A metric's value."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def interval(i: Interval) -> str:
    """A mean with half of its interval."""
    return figure(i.mean) if math.isnan(i.low) else f"{i.mean:.3f} ± {i.high - i.mean:.3f}"


def span(i: Interval) -> str:
    """An interval by its ends."""
    return f"{i.mean:+.3f}" if math.isnan(i.low) else f"{i.mean:+.3f} [{i.low:+.3f}, {i.high:+.3f}]"


def count(n: int) -> str:
    """A count with its thousands."""
    return f"{n:,.0f}"


def size(n: float | int) -> str:
    """Bytes as B, kB or MB."""
    for unit, scale in (("MB", 1e6), ("kB", 1e3)):
        if n >= scale:
            return f"{n / scale:.3g} {unit}" if n < 100 * scale else f"{n / scale:.0f} {unit}"
    return f"{n:.0f} B"


def rate(n: float) -> str:
    """Tokens a second."""
    return f"{n / 1e3:.3g}k" if n >= 1e3 else f"{n:.3g}"


def lr(entry: Entry) -> str:
    """The chosen learning rate; an edge of the grid is marked."""
    if entry.lr is None:
        return "–"
    return f"{entry.lr:g}" + (" (edge)" if entry.at_edge else "")


def seeds(entry: Entry) -> list[str]:
    """Every fresh seed's figure."""
    return ["diverged" if seed in entry.diverged else figure(x) for seed, x in sorted(entry.fresh.items())]


def without_figures(entry: Entry) -> str:
    """Why an architecture has no fresh figure."""
    return "not run" if entry.lr is None or not entry.at_edge else "diverged at every lr"


def metric(table: Table) -> str:
    """The metric and its direction."""
    name, higher, _ = METRICS[table.metric]
    return f"test {name} ({'higher' if higher else 'lower'} is better)"


def winner(table: Table) -> str:
    """One sentence: who won, or why nobody is said to have."""
    v = table.verdict()
    if v is None:
        return "Too few architectures have fresh figures to compare."
    if v.claimed:
        return f"{v.leader} wins: {v.reason}."
    return f"{v.leader} leads, but no winner is claimed: {v.reason}."


def solved_rule(table: Table) -> str:
    """What counts as solved."""
    sign = "≥" if table.higher_is_better else "≤"
    return f"solved: {METRICS[table.metric][0]} {sign} {table.solved_at:.3g}"
