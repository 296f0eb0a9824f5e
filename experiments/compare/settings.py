"""What a comparison is: contestants, tasks, and what is expected to come out. All of it is data."""

from dataclasses import dataclass, field

from ...layers import ChannelMixerConfig
from ..config import OptimConfig
from ..data import DataConfig


@dataclass(frozen=True)
class Expectation:
    """What a preset says will come out, checked against the mean test figure of the fresh seeds.

    Exactly one of the three bounds is set.
    """

    arch: str
    """An architecture, or ``"*"`` for every one."""
    at_least: float | None = None
    at_most: float | None = None
    beats: str | None = None
    """A baseline of the data, such as ``"bigram"``."""
    published: float | None = None
    """What the paper reports, at its own size: shown beside ours, and no bound."""


@dataclass(frozen=True)
class Task:
    """One task: data, the trunk that every architecture shares, and the budget that every one gets."""

    name: str
    data: DataConfig
    dims: tuple[int, ...]
    """Model widths; three or more give a plot of quality against state."""
    depth: int
    heads: int
    """Heads of every mixer that has heads."""
    mlp: ChannelMixerConfig | None
    """The channel mixer of the first architecture; the others' widths are solved to match its parameters."""
    steps: int
    batch: int
    lrs: tuple[float, ...]
    """The learning rates that every architecture tries."""
    seeds: int
    """Fresh seeds."""
    selection_seeds: int = 1
    embed_std: float = 0.02
    optim: OptimConfig = field(default_factory=OptimConfig)
    solved: float | None = None
    """The test figure from which a seed has solved the task; None: the data's strongest baseline."""
    expectations: tuple[Expectation, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Architectures on tasks, under one set of rules."""

    name: str
    archs: tuple[str, ...]
    """Presets or layers by name, as they are or changed (``deltanet+negative_eigenvalues=true``, ``mamba2-conv``), or
    ``file.py:name`` for a user's own. The first sets the parameter count that others match."""
    tasks: tuple[Task, ...]
