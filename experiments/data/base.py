"""What data is: step-addressed batches for training, and one fixed set for each evaluation."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

Split = Literal["validation", "test"]


class Batch(NamedTuple):
    """Rows of tokens, what to predict at each, and how much that counts."""

    tokens: Int[np.ndarray, "*rows T"]
    targets: Int[np.ndarray, "*rows T"]
    weights: Float[np.ndarray, "*rows T"]
    """0 where there is no loss."""


@runtime_checkable
class Source(Protocol):
    """Data that has been read or is made on demand."""

    vocab: int
    length: int
    """Tokens of a training row, T. Evaluation rows may be longer."""
    sha256: str
    """Identifies the data: figures over different data are never put side by side."""
    metric: Literal["accuracy", "scaled_accuracy", "bits_per_byte"]
    chance: float = 0.0
    """What guessing gets where the metric is ``scaled_accuracy``, ``(accuracy - chance) / (1 - chance)``."""

    def train(self, seed: int, start: int, count: int, batch: int) -> Batch:
        """The batches of steps ``start`` to ``start + count - 1``, ``[count, batch, T]``: a pure function of these."""
        ...

    def evaluation(self, split: Split) -> Batch:
        """The one fixed set of a split, ``[rows, T]``, T being one length for both splits."""
        ...

    def evaluation_bytes(self, split: Split) -> float:
        """How many bytes of text the targets of that set stand for; 0 where there is no text."""
        ...

    def baselines(self, split: Split) -> dict[str, float]:
        """The metric of trivial predictors on that set, such as ``{"bigram": 3.6}``."""
        ...


@dataclass(frozen=True)
class DataConfig:
    """Which data; JSON-able and comparable. Building it again in one process is free."""

    def build(self) -> Source:
        """Reads or prepares the data."""
        raise NotImplementedError
