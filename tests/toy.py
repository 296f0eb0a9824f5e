"""Data that is quick to make and to learn, for tests of the trainer: each token follows from the one before."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from subquad.archs.config import LMConfig
from subquad.experiments.config import OptimConfig, RunConfig
from subquad.experiments.data.base import Batch, DataConfig
from subquad.layers import AttentionConfig, GeluMLPConfig, MinGRUConfig


@dataclass(frozen=True)
class ToyConfig(DataConfig):
    """Walks ``x -> (a x + b) mod vocab``; a third of the positions carry a weight, of 1 or 2."""

    length: int = 16
    vocab: int = 32
    metric: Literal["accuracy", "scaled_accuracy", "bits_per_byte"] = "accuracy"
    poison: tuple[int, ...] = ()
    """Steps whose weights are NaN."""

    def build(self) -> "Toy":
        return Toy(self)


class Toy:
    chance = 0.25

    def __init__(self, config: ToyConfig):
        self.config, self.vocab, self.length, self.metric = config, config.vocab, config.length, config.metric
        self.sha256 = hashlib.sha256(repr(config).encode()).hexdigest()

    def train(self, seed: int, start: int, count: int, batch: int) -> Batch:
        steps = [self._rows((0, seed, start + i), batch) for i in range(count)]
        for i, step in enumerate(steps):
            if start + i in self.config.poison:
                step.weights[:] = np.nan
        return Batch(*map(np.stack, zip(*steps, strict=True)))

    def evaluation(self, split: str) -> Batch:
        return self._rows((1, ["validation", "test"].index(split)), 37)

    def evaluation_bytes(self, split: str) -> float:
        return 1000.0

    def baselines(self, split: str) -> dict[str, float]:
        return {"chance": 1 / self.vocab}

    def _rows(self, key: tuple[int, ...], rows: int) -> Batch:
        draw = np.random.default_rng(key)
        walk = [draw.integers(self.vocab, size=rows)]
        for _ in range(self.length):
            walk.append((5 * walk[-1] + 3) % self.vocab)
        tokens = np.stack(walk, 1).astype(np.int32)
        weights = draw.choice([0.0, 0.0, 0.0, 0.0, 1.0, 2.0], (rows, self.length)).astype(np.float32)
        return Batch(tokens[:, :-1], tokens[:, 1:], weights)


def toy_run(**changes) -> RunConfig:
    """A run that takes a second or two; ``optim`` and ``model`` may be given as dicts of changes."""
    model = {"vocab": 32, "dim": 32, "depth": 2, "pattern": (AttentionConfig(head_dim=16),), "mlp": GeluMLPConfig()}
    model |= {"embed_std": 0.3} | changes.pop("model", {})
    optim = {"lr": 1e-2} | changes.pop("optim", {})
    data = ToyConfig(**changes.pop("data", {}))
    settings = {"steps": 40, "batch": 8, "chunk": 5} | changes
    return RunConfig(model=LMConfig(**model), data=data, optim=OptimConfig(**optim), **settings)


HYBRID = (AttentionConfig(head_dim=16), MinGRUConfig())
