"""What one run is: a frozen description that can be compared, hashed and written as JSON."""

from dataclasses import dataclass, field
from math import gcd
from typing import Literal

from ..archs.config import LMConfig
from .data.base import DataConfig
from .errors import UserError
from .serialize import from_json, to_json

__all__ = ["OptimConfig", "RunConfig", "from_json", "to_json"]


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with weight decay decoupled from the learning rate (see :mod:`.optim`)."""

    lr: float = 1e-3
    """The peak learning rate."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """After the warm-up: half a cosine to ``final``, or stable at the peak and then a linear decay to ``final``."""
    warmup: float = 0.1
    """The fraction of the steps over which the schedule rises from 0 to 1."""
    decay: float = 0.2
    """The fraction of the steps over which the schedule ``wsd`` decays at the end."""
    final: float = 0.0
    """Where the schedule ends, as a fraction of its peak."""
    weight_decay: float = 1e-4
    """What a weight matrix loses per step at the peak of the schedule, as a fraction; independent of ``lr``."""
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    clip: float = 1.0
    """The global norm that gradients are scaled down to."""

    def __post_init__(self):
        for name in ("warmup", "decay", "final"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"optim.{name} is a fraction between 0 and 1, not {getattr(self, name)}")
        if self.schedule == "wsd" and self.warmup + self.decay > 1:
            raise UserError(f"optim.warmup + optim.decay is {self.warmup + self.decay:g}: at most 1 fits in the run")
        if not self.lr > 0 or not self.clip > 0:
            raise UserError(f"optim.lr and optim.clip are above 0, not {self.lr} and {self.clip}")


@dataclass(frozen=True)
class RunConfig:
    """One training run. Two runs of equal config on the same devices give the same numbers, bit for bit on a CPU."""

    model: LMConfig
    data: DataConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    steps: int = 1000
    batch: int = 32
    """Sequences per step, over all devices."""
    seed: int = 0
    """Draws the initial parameters."""
    data_seed: int | None = None
    """Draws the order of the data. ``None``: ``seed``."""
    accumulate: int = 1
    """Micro-batches that one step's batch is cut into, to save memory; the gradient is the same."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What matrix products compute in. Parameters and optimizer state are float32."""
    eval_every: int = 0
    """Steps between evaluations on the validation split; 0: at the end only."""
    save_every: int = 0
    """Steps between checkpoints; 0: the final parameters only."""
    keep_last: int = 2
    """Checkpoints kept: this many of the newest ..."""
    keep_every: int = 0
    """... and each whose step is a multiple of this (0: no others)."""
    chunk: int = 20
    """At most this many steps run in one compiled call. Logs, evaluations and saves fall between calls."""
    max_bad_steps: int = 10
    """This many non-finite steps in a row end the run as diverged."""
    devices: int = 1
    """The number of devices that share each batch."""
    fsdp: bool = True
    """With several devices: parameters and optimizer state are sharded too, not replicated."""

    def __post_init__(self):
        for name, least in {
            "steps": 1, "batch": 1, "seed": 0, "data_seed": 0, "accumulate": 1, "eval_every": 0, "save_every": 0,
            "keep_last": 1, "keep_every": 0, "chunk": 1, "max_bad_steps": 1, "devices": 1,
        }.items():  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{name} is at least {least}, not {value}")
        for name in ("seed", "data_seed"):
            if (getattr(self, name) or 0) >= 2**32:
                raise UserError(f"{name} is below 2**32, not {getattr(self, name)}")
        if self.batch % (self.accumulate * self.devices):
            raise UserError(
                f"batch {self.batch} does not divide over {self.devices} devices x {self.accumulate} micro-batches: "
                f"use a multiple of {self.accumulate * self.devices}"
            )
        if self.keep_every and (not self.save_every or self.keep_every % self.save_every):
            raise UserError(f"keep_every {self.keep_every} is not a multiple of save_every {self.save_every}")

    @property
    def order(self) -> int:
        """The seed of the data order."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def chunk_steps(self) -> int:
        """The steps of one compiled call: the largest number up to ``chunk`` that ends on every boundary."""
        boundary = gcd(self.steps, self.eval_every, self.save_every)
        return max(n for n in range(1, self.chunk + 1) if boundary % n == 0)
