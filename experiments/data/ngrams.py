"""What text is worth without a model: the baselines that every architecture must beat."""

import numpy as np


def unigram_bits(train: np.ndarray, targets: np.ndarray, vocab: int) -> float:
    """Bits per target of token frequencies counted on ``train``, with one added to every count."""
    counts = np.bincount(train, minlength=vocab) + 1.0
    return float(np.log2(counts.sum() / counts)[targets].mean())


def bigram_bits(train: np.ndarray, tokens: np.ndarray, targets: np.ndarray, vocab: int) -> float:
    """Bits per target given the token before it.

    The counts after each token are mixed with the unigram frequencies by Witten-Bell's weight: a context seen n times
    with d different successors gets ``n / (n + d)``.
    """
    pairs = np.bincount(train[:-1].astype(np.int64) * vocab + train[1:], minlength=vocab * vocab).reshape(vocab, vocab)
    unigram = np.bincount(train, minlength=vocab) + 1.0
    unigram /= unigram.sum()
    seen, different = pairs.sum(1), (pairs > 0).sum(1)
    total = np.maximum(seen + different, 1)
    back_off = np.where(seen > 0, different / total, 1.0)[tokens]
    chance = pairs[tokens, targets] / total[tokens] + back_off * unigram[targets]
    return float(-np.log2(chance).mean())
