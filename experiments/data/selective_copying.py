"""Selective copying: tokens scattered among noise, to be named in order at the end."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..errors import UserError
from .base import Batch, DataConfig
from .synthetic import Synthetic

VERSION = 1
"""Of the generator: raise it when the same seed gives other batches."""


@dataclass(frozen=True)
class SelectiveCopyingConfig(DataConfig):
    """Selective copying.

    A row is ``context`` tokens, of which ``memorise`` at random places carry one of the tokens 1 to vocab - 2 and all
    others are 0, the noise; then ``memorise`` markers, the token vocab - 1. At the i-th marker the i-th of the
    scattered tokens is to be named. Loss and accuracy are taken there alone, and the answers stand in the targets only.

    Args:
        vocab: tokens, noise and marker among them.
        memorise: tokens to memorise.
        context: tokens before the markers.
        rows: evaluation rows; None: as many as hold 16,384 answers.

    Source: Gu & Dao (2023), Mamba, arXiv 2312.00752 (``published`` is its size: 16 of 4,096 tokens); the generator is
    that of github.com/state-spaces/s4, after Jing et al. (2017), Gated Orthogonal Recurrent Units, arXiv 1706.02761.
    """

    vocab: int = 16
    memorise: int = 8
    context: int = 64
    rows: int | None = None

    def __post_init__(self):
        if self.vocab < 4:
            raise UserError(f"selective copying: vocab is at least 4 (noise, marker and two tokens), not {self.vocab}")
        if not 1 <= self.memorise <= self.context:
            raise UserError(
                f"selective copying: {self.memorise} tokens to memorise do not fit in a context of {self.context}: "
                f"memorise at least 1, at most as many as the context has"
            )
        if self.rows is not None and self.rows < 1:
            raise UserError(f"selective copying: rows is at least 1, not {self.rows}")

    def build(self) -> "SelectiveCopying":
        """The generator; nothing is stored but the evaluation sets."""
        return _build(self)


def published() -> SelectiveCopyingConfig:
    """Selective copying at Mamba's published size: 16 tokens to memorise out of 4,096."""
    return SelectiveCopyingConfig(memorise=16, context=4096)


class SelectiveCopying(Synthetic):
    """Draws rows; see ``SelectiveCopyingConfig``."""

    metric = "accuracy"
    config: SelectiveCopyingConfig

    def __init__(self, config: SelectiveCopyingConfig):
        super().__init__(config, f"selective copying {VERSION}", config.vocab, config.context + config.memorise)

    def draw_train(self, rng: np.random.Generator, rows: int) -> Batch:
        """Rows."""
        return self._rows(rng, rows)

    def draw_evaluation(self, rng: np.random.Generator) -> Batch:
        """Rows."""
        return self._rows(rng, self.config.rows or -(-16_384 // self.config.memorise))

    def baselines(self, split: str) -> dict[str, float]:
        """Guessing among the tokens that are memorised."""
        return {"chance": 1 / (self.vocab - 2)}

    def _rows(self, rng: np.random.Generator, rows: int) -> Batch:
        count, context = self.config.memorise, self.config.context
        wanted = rng.integers(1, self.vocab - 1, size=(rows, count), dtype=np.int32)
        places = np.sort(np.argsort(rng.random((rows, context)), axis=1)[:, :count], axis=1)
        tokens, targets = np.zeros((2, rows, self.length), np.int32)
        np.put_along_axis(tokens, places, wanted, axis=1)
        tokens[:, context:], targets[:, context:] = self.vocab - 1, wanted
        return Batch(
            tokens, targets, np.broadcast_to(np.arange(self.length) >= context, tokens.shape).astype(np.float32)
        )


_build = lru_cache(maxsize=8)(SelectiveCopying)
