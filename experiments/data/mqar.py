"""Multi-query associative recall: key-value pairs first, then keys whose values must be named."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from ..errors import UserError
from .base import Batch, DataConfig, Split
from .synthetic import Synthetic

VERSION = 1
"""Of the generator: raise it when the same seed gives other batches."""


@dataclass(frozen=True)
class MQARConfig(DataConfig):
    """Multi-query associative recall (MQAR).

    Tokens 1 to vocab/2 - 1 are keys, the upper half are values. A row starts with ``pairs`` distinct keys, each
    followed by its value; later, keys stand again, and their values are to be predicted. Loss and accuracy are taken
    there alone; chance is one in ``pairs`` for a model that only knows which values stand in the row.

    With ``queries="dense"`` every remaining slot asks for one of the pairs at random, and the answer follows. With
    ``"gaps"``, as in Zoology's code, each pair is asked for once, at a slot drawn with probability proportional to
    ``k ** (power - 1)`` for gap k; the values of a row differ; all other tokens are random, so that the answer stands
    in the targets only.

    Args:
        vocab: tokens, even.
        train: ``(T, pairs)`` of the training rows, one drawn per step; a row shorter than the longest is padded.
        test: ``(T, pairs)`` of the evaluation rows.
        queries: where the queries stand.
        power: the exponent of the gaps.
        rows: evaluation rows; None: as many as hold 16,384 queries.

    Source: Arora et al. (2023), Zoology, arXiv 2312.04927.
    """

    vocab: int = 64
    train: tuple[tuple[int, int], ...] = ((32, 1), (32, 2), (32, 4), (32, 8))
    test: tuple[int, int] = (32, 8)
    queries: Literal["dense", "gaps"] = "dense"
    power: float = 0.01
    rows: int | None = None

    def __post_init__(self):
        for T, pairs in (*self.train, self.test):
            if not 1 <= pairs <= self.vocab // 2 - 1:
                raise UserError(f"mqar: {pairs} pairs need a vocabulary of at least {2 * pairs + 2}, not {self.vocab}")
            most = T // 4 if self.queries == "gaps" else (T - 2) // 2
            if T % 2 or pairs > most:
                raise UserError(f"mqar: {pairs} pairs and their queries do not fit in T={T}: use an even T, larger")

    @property
    def length(self) -> int:
        """Tokens of a row, T."""
        return max(T for T, _ in (*self.train, self.test))

    def build(self) -> "MQAR":
        """The generator; nothing is stored but the evaluation sets."""
        return _build(self)


def zoology() -> MQARConfig:
    """MQAR at Zoology's published size: vocabulary 8192, up to 256 tokens and 64 pairs."""
    return MQARConfig(8192, ((64, 4), (128, 8), (256, 16), (256, 32), (256, 64)), (256, 64), "gaps")


class MQAR(Synthetic):
    """Draws rows; see ``MQARConfig``."""

    metric = "accuracy"
    config: MQARConfig

    def __init__(self, config: MQARConfig):
        super().__init__(config, f"mqar {VERSION}", config.vocab, config.length)

    def draw_train(self, rng: np.random.Generator, rows: int) -> Batch:
        """Rows of one of the training shapes."""
        return self._rows(rng, rows, *self.config.train[rng.integers(len(self.config.train))])

    def draw_evaluation(self, rng: np.random.Generator) -> Batch:
        """Rows of the evaluation shape."""
        T, pairs = self.config.test
        queries = pairs if self.config.queries == "gaps" else (T - 2 * pairs) // 2
        return self._rows(rng, self.config.rows or -(-16_384 // queries), T, pairs)

    def baselines(self, split: Split) -> dict[str, float]:
        """Guessing among the values of the row."""
        return {"chance": 1 / self.config.test[1]}

    def _rows(self, rng: np.random.Generator, rows: int, T: int, pairs: int) -> Batch:
        half, slots = self.vocab // 2, (T - 2 * pairs) // 2
        keys = _distinct(rng, rows, half - 1, pairs) + 1
        if self.config.queries == "dense":
            values = rng.integers(half, self.vocab, (rows, pairs))
            asked = rng.integers(pairs, size=(rows, slots))
            slot = np.broadcast_to(np.arange(slots), asked.shape)
            row = np.zeros((rows, self.length + 1), np.int32)
        else:
            values = _distinct(rng, rows, self.vocab - half, pairs) + half
            asked = np.broadcast_to(np.arange(pairs), (rows, pairs))
            slot = _gaps(rng, rows, slots, pairs, self.config.power)
            row = rng.integers(0, self.vocab, (rows, self.length + 1), dtype=np.int32)
        row[:, 0 : 2 * pairs : 2], row[:, 1 : 2 * pairs : 2] = keys, values
        position = 2 * pairs + 2 * slot
        np.put_along_axis(row, position, np.take_along_axis(keys, asked, 1).astype(np.int32), 1)
        tokens = row if self.config.queries == "dense" else row.copy()
        np.put_along_axis(row, position + 1, np.take_along_axis(values, asked, 1).astype(np.int32), 1)
        weights = np.zeros((rows, self.length), np.float32)
        np.put_along_axis(weights, position, np.float32(1), 1)
        return Batch(tokens[:, :-1], row[:, 1:], weights)


_build = lru_cache(maxsize=8)(MQAR)


def _distinct(rng: np.random.Generator, rows: int, n: int, count: int) -> np.ndarray:
    """``count`` distinct numbers below n for each row, in random order: the places of the smallest of n draws."""
    draws = rng.random((rows, n))
    places = np.argpartition(draws, count - 1, axis=1)[:, :count]
    order = np.argsort(np.take_along_axis(draws, places, 1), axis=1)
    return np.take_along_axis(places, order, 1)


def _gaps(rng: np.random.Generator, rows: int, slots: int, count: int, power: float) -> np.ndarray:
    """``count`` distinct slots for each row, drawn one after another with weight ``k ** (power - 1)``.

    The largest of log-weights with Gumbel noise are such a draw.
    """
    noisy = (power - 1) * np.log(np.arange(1, slots + 1)) + rng.gumbel(size=(rows, slots))
    return np.argsort(-noisy, axis=1)[:, :count]
