"""What synthetic tasks share: rows drawn from counter-based streams, and evaluation sets that are drawn once."""

import hashlib
from typing import Any

import numpy as np

from .base import Batch, Source, Split

DOMAINS = {"train": 0, "validation": 1, "test": 2}
"""Batches of different domains come from different random streams, whatever their seeds."""


class Synthetic(Source):
    """A task whose rows are drawn. A subclass says how: ``draw_train`` and ``draw_evaluation``.

    Args:
        config: the task's settings, with which its data changes.
        task: its name and the version of its generator: another version gives other batches for the same seed.
        vocab: the number of tokens there are.
        length: tokens of a training row, T.
    """

    def __init__(self, config: Any, task: str, vocab: int, length: int):
        self.config, self.vocab, self.length = config, vocab, length
        self.sha256 = hashlib.sha256(f"{task} {config}".encode()).hexdigest()
        self._sets: dict[Split, Batch] = {}

    def draw_train(self, rng: np.random.Generator, rows: int) -> Batch:
        """The rows of one training step, ``[rows, T]``."""
        raise NotImplementedError

    def draw_evaluation(self, rng: np.random.Generator) -> Batch:
        """The rows of an evaluation set, ``[rows, T]``."""
        raise NotImplementedError

    def train(self, seed: int, start: int, count: int, batch: int) -> Batch:
        """The batches of ``count`` steps, ``[count, batch, T]``; step s draws from the stream keyed by (seed, s)."""
        steps = [self.draw_train(stream("train", seed, step), batch) for step in range(start, start + count)]
        return Batch(*(np.stack(arrays) for arrays in zip(*steps, strict=True)))

    def evaluation(self, split: Split) -> Batch:
        """The fixed set of a split, ``[rows, T]``."""
        if split not in self._sets:
            self._sets[split] = self.draw_evaluation(stream(split, 0, 0))
        return self._sets[split]

    def evaluation_bytes(self, split: Split) -> int:
        """No text stands behind the tokens."""
        return 0


def stream(domain: str, seed: int, step: int) -> np.random.Generator:
    """A counter-based stream: what it yields depends on nothing but the three arguments."""
    return np.random.Generator(np.random.Philox(key=np.array([seed | DOMAINS[domain] << 32, step], np.uint64)))
