"""State tracking: parity, and modular arithmetic without brackets. What solves short rows must solve long ones."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from ..errors import UserError
from .base import Batch, DataConfig
from .synthetic import Synthetic

VERSION = 1
"""Of the generator: raise it when the same seed gives other batches."""

PLUS, MINUS, TIMES, EQUALS = 1, 2, 3, 4
"""Tokens of modular arithmetic; 0 is padding, 5 + n the number n."""


@dataclass(frozen=True)
class StateTrackingConfig(DataConfig):
    """Parity and modular arithmetic, as in the xLSTM paper and its code.

    Parity: tokens 1 and 2 are the bits 0 and 1; the answer is the parity of all bits. Modular arithmetic: numbers below
    ``modulus`` with +, - or * between them, * before the others, then =; the answer is the value modulo ``modulus``.

    A row holds one sequence of n tokens, the answer among them, and then padding. The answer stands in the targets
    only, and loss and accuracy are taken there alone: at the last bit, or at =.

    Accuracy is scaled so that guessing has 0 and no mistake 1: ``(accuracy - chance) / (1 - chance)``, where chance is
    one half, or one in ``modulus``.

    Args:
        task: which.
        train: least and largest n of training sequences, each n equally likely.
        test: the same of evaluation sequences, which may be longer.
        modulus: of the arithmetic.
        rows: evaluation rows, one answer each.

    Source: Beck et al. (2024), xLSTM, arXiv 2405.04517, and github.com/NX-AI/xlstm; Grazzi et al. (2024), Unlocking
    State-Tracking in Linear RNNs Through Negative Eigenvalues, arXiv 2411.12537; lengths 3-40 and 40-256 are theirs.
    """

    task: Literal["parity", "modular"] = "parity"
    train: tuple[int, int] = (3, 40)
    test: tuple[int, int] = (40, 256)
    modulus: int = 5
    rows: int = 16_384

    def __post_init__(self):
        if self.task not in ("parity", "modular"):
            raise UserError(f"state tracking: task is parity or modular, not {self.task!r}")
        for name in ("train", "test"):
            low, high = getattr(self, name)
            if low < 3 or not self.sizes(name):
                odd = "an odd" if self.task == "modular" else "a"
                raise UserError(f"{self.task}: {name} lengths {low} to {high}: from 3 on, with {odd} length among them")
        if self.modulus < 2:
            raise UserError(f"{self.task}: modulus is at least 2, not {self.modulus}")
        if self.rows < 1:
            raise UserError(f"{self.task}: rows is at least 1, not {self.rows}")

    def sizes(self, which: Literal["train", "test"]) -> range:
        """The lengths of sequences, n: those of arithmetic are odd."""
        low, high = getattr(self, which)
        return range(low | 1, high + 1, 2) if self.task == "modular" else range(low, high + 1)

    def build(self) -> "StateTracking":
        """The generator; nothing is stored but the evaluation sets."""
        return _build(self)


class StateTracking(Synthetic):
    """Draws rows; see ``StateTrackingConfig``."""

    metric = "scaled_accuracy"
    config: StateTrackingConfig

    def __init__(self, config: StateTrackingConfig):
        vocab = 3 if config.task == "parity" else 5 + config.modulus
        super().__init__(config, f"state tracking {VERSION}", vocab, config.sizes("train")[-1] - 1)
        self.chance = 1 / 2 if config.task == "parity" else 1 / config.modulus

    def draw_train(self, rng: np.random.Generator, rows: int) -> Batch:
        """Rows of the training lengths."""
        return self._rows(rng, rows, self.config.sizes("train"))

    def draw_evaluation(self, rng: np.random.Generator) -> Batch:
        """Rows of the evaluation lengths."""
        return self._rows(rng, self.config.rows, self.config.sizes("test"))

    def baselines(self, split: str) -> dict[str, float]:
        """Guessing."""
        return {"chance": 0.0}

    def _rows(self, rng: np.random.Generator, rows: int, sizes: range) -> Batch:
        T = sizes[-1] - 1
        tokens, answers = (self._parity if self.config.task == "parity" else self._modular)(rng, rows, T)
        position, last = np.arange(T), rng.choice(sizes, size=(rows, 1)) - 2  # the answer follows the token at last
        if self.config.task == "modular":
            # = takes the place of an operator; what it follows has the value so far.
            answers = np.roll(answers, 1, axis=1)
            tokens = np.where(position == last, EQUALS, tokens)
        asked = position == last
        targets = np.where(asked, answers, 0).astype(np.int32)
        return Batch(np.where(position <= last, tokens, 0).astype(np.int32), targets, asked.astype(np.float32))

    def _parity(self, rng: np.random.Generator, rows: int, T: int) -> tuple[np.ndarray, np.ndarray]:
        bits = rng.integers(2, size=(rows, T), dtype=np.int32)
        return bits + 1, np.cumsum(bits, axis=1, dtype=np.int32) % 2 + 1

    def _modular(self, rng: np.random.Generator, rows: int, T: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers at even places, operators at odd ones; the value so far stands with each number."""
        m = self.config.modulus
        numbers = rng.integers(m, size=(rows, (T + 1) // 2), dtype=np.int32)
        operators = rng.integers(PLUS, TIMES + 1, size=(rows, T // 2), dtype=np.int32)
        tokens, answers = np.zeros((2, rows, T), np.int32)
        tokens[:, ::2], tokens[:, 1::2] = numbers + 5, operators
        total, term = np.zeros_like(numbers[:, 0]), numbers[:, 0]  # the terms that are done, and the one that is not
        answers[:, 0] = term + 5
        for i, (operator, number) in enumerate(zip(operators.T, numbers.T[1:], strict=False)):
            times = operator == TIMES
            total = np.where(times, total, (total + term) % m)
            term = np.where(times, term * number, np.where(operator == MINUS, -number, number)) % m
            answers[:, 2 * i + 2] = (total + term) % m + 5
        return tokens, answers


_build = lru_cache(maxsize=8)(StateTracking)
