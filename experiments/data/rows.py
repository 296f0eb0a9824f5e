"""Text as rows of tokens: consecutive windows, shuffled anew each epoch, addressed by the step."""

from functools import lru_cache

import numpy as np

from ..errors import UserError
from .base import Batch, Source, Split
from .ngrams import bigram_bits, unigram_bits
from .splits import EVALUATION_BYTES

COUNTED = 2**23
"""Tokens of training text that the baselines count, at most."""


class Text(Source):
    """Windows of T tokens over one long array a split.

    Row r of an epoch is window ``permutation(r)``; row number ``step * batch + j`` counts on through the epochs, so the
    step is the whole position in the data.

    Args:
        splits: tokens of the splits ``train``, ``validation`` and ``test``, possibly memory-mapped.
        bytes_per_token: UTF-8 bytes that a token of each split stands for, on average.
        vocab: the number of tokens there are.
        length: tokens of a row, T.
        sha256: of all the tokens.
        name: what an error calls the text.
    """

    metric = "bits_per_byte"

    def __init__(
        self,
        splits: dict[str, np.ndarray],
        bytes_per_token: dict[str, float],
        vocab: int,
        length: int,
        sha256: str,
        name: str,
    ):
        self.splits, self.bytes_per_token, self.vocab, self.length = splits, bytes_per_token, vocab, length
        self.sha256 = sha256
        for split, tokens in splits.items():
            if len(tokens) <= length:
                raise UserError(
                    f"{name}: the {split} split has {len(tokens)} tokens, too few for one row of {length} + 1: "
                    f"give more text or a shorter context"
                )

    def train(self, seed: int, start: int, count: int, batch: int) -> Batch:
        """The batches of steps ``start`` to ``start + count - 1``, ``[count, batch, T]``."""
        tokens = self.splits["train"]
        windows = (len(tokens) - 1) // self.length
        numbers = np.arange(start * batch, (start + count) * batch, dtype=np.int64)
        epochs, places = np.divmod(numbers, windows)
        order = np.empty_like(places)
        for epoch in np.unique(epochs):
            order[epochs == epoch] = _permutation(windows, seed, int(epoch))[places[epochs == epoch]]
        return self._windows(tokens, order.reshape(count, batch) * self.length)

    def evaluation(self, split: Split) -> Batch:
        """100 kB of a split, ``[rows, T]``: windows that do not overlap, spread evenly; less where it holds less."""
        tokens = self.splits[split]
        wanted = -(-EVALUATION_BYTES // max(1, int(self.length * self.bytes_per_token[split])))
        windows = (len(tokens) - 1) // self.length
        rows = min(wanted, windows)
        return self._windows(tokens, np.arange(rows) * windows // rows * self.length)

    def evaluation_bytes(self, split: Split) -> float:
        """The bytes that the targets of a split's evaluation set stand for."""
        return self.evaluation(split).targets.size * self.bytes_per_token[split]

    def baselines(self, split: Split) -> dict[str, float]:
        """Bits per byte of token frequencies, and of frequencies after one token, counted on training text."""
        rows = self.evaluation(split)
        train = self.splits["train"][:COUNTED]
        tokens, targets = rows.tokens.ravel(), rows.targets.ravel()
        per_byte = 1 / self.bytes_per_token[split]
        found = {"unigram": unigram_bits(train, targets, self.vocab) * per_byte}
        if self.vocab <= 4096:  # a table of pairs; past that it needs more text than a comparison reads
            found["bigram"] = bigram_bits(train, tokens, targets, self.vocab) * per_byte
        return found

    def _windows(self, tokens: np.ndarray, starts: np.ndarray) -> Batch:
        rows = tokens[starts[..., None] + np.arange(self.length + 1)].astype(np.int32)
        return Batch(rows[..., :-1], rows[..., 1:], np.ones((*starts.shape, self.length), np.float32))


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch's windows: a function of the three numbers alone."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, epoch], np.uint64))).permutation(n)
