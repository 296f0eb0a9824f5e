"""What a comparison found: plain data that the terminal, the page and the tests of both read."""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .stats import Interval, Verdict, t_interval, verdict

METRICS = {
    "accuracy": ("accuracy", True, 0.0),
    "scaled_accuracy": ("scaled accuracy", True, 0.0),
    "bits_per_byte": ("bits per byte", False, 8.0),
}
"""Metric to (its name, whether higher is better, the figure of a diverged run: nothing right, or uniform bytes)."""


class Check(NamedTuple):
    """One rule of fairness: whether it holds, and the figures."""

    rule: str
    holds: bool
    detail: str


class Curve(NamedTuple):
    """Training loss over steps of one run."""

    steps: list[int]
    loss: list[float]


@dataclass(frozen=True)
class Cost:
    """What an architecture costs, measured alone."""

    train_tokens_per_s: float
    decode_ms: float
    """Milliseconds a token at batch 1."""
    peak_mb: float
    """Memory of a training step, in MB."""
    implementations: tuple[str, ...]
    """What ran, such as ``"gla: xla"``."""


@dataclass(frozen=True)
class Entry:
    """One architecture on one task at one width."""

    arch: str
    parameters: int
    """Non-embedding parameters."""
    state_bytes: int
    overrides: dict[str, Any]
    config: dict[str, Any]
    lr: float | None
    """The chosen learning rate; None before selection is over."""
    at_edge: bool
    scores: dict[float, list[float]]
    """Validation losses by learning rate, one a selection seed; infinite where diverged."""
    fresh: dict[int, float]
    """Test figure by fresh seed; a diverged run has the metric's worst."""
    diverged: tuple[int, ...]
    """The fresh seeds that diverged."""
    curves: dict[int, Curve]
    """Loss curves by fresh seed."""
    cost: Cost | None = None

    @property
    def interval(self) -> Interval:
        """The mean over fresh seeds with its 95% t interval."""
        return t_interval(list(self.fresh.values())) if self.fresh else Interval(math.nan, math.nan, math.nan)


class Outcome(NamedTuple):
    """An expectation beside what came out."""

    text: str
    met: bool
    got: str


@dataclass(frozen=True)
class Table:
    """One task at one width: every architecture on the same data under the same rules."""

    task: str
    dim: int
    metric: str
    sha256: str
    """Of the data: tables of different data are never one."""
    description: str
    baselines: dict[str, float]
    solved_at: float
    entries: tuple[Entry, ...]
    checks: tuple[Check, ...] = ()
    expected: tuple[Outcome, ...] = ()

    @property
    def higher_is_better(self) -> bool:
        """The metric's direction."""
        return METRICS[self.metric][1]

    @property
    def complete(self) -> tuple[Entry, ...]:
        """The entries that have fresh figures, best first."""
        done = [entry for entry in self.entries if entry.fresh]
        return tuple(sorted(done, key=lambda entry: entry.interval.mean, reverse=self.higher_is_better))

    def verdict(self) -> Verdict | None:
        """Who leads, and whether that is a win; None before two architectures have figures."""
        if len(self.complete) < 2:
            return None
        return verdict({entry.arch: entry.fresh for entry in self.complete}, self.higher_is_better)

    def solved(self, entry: Entry) -> int:
        """How many fresh seeds of ``entry`` solved the task."""
        figures = [x for seed, x in entry.fresh.items() if seed not in entry.diverged]
        return sum(x >= self.solved_at if self.higher_is_better else x <= self.solved_at for x in figures)


@dataclass(frozen=True)
class Study:
    """A whole comparison."""

    name: str
    tables: tuple[Table, ...]
    command: str
    versions: dict[str, str] = field(default_factory=dict)
    host: str = ""
    seconds: float | None = None
    """Wall time of the command that finished it, if it ran from start to end in one go."""
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def archs(self) -> list[str]:
        """Every architecture, in the comparison's order: what gives each its colour."""
        return list(dict.fromkeys(entry.arch for table in self.tables for entry in table.entries))
