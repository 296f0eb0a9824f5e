"""Evaluation on one fixed set: the same rows, in the same batches, for every model and step."""

import math

import jax
import numpy as np

from .data.base import Batch, Source, Split
from .mesh import batch_sharding
from .step import Program, State, Sums


def evaluate(program: Program, state: State, source: Source, split: Split, batch: int) -> dict[str, float]:
    """Loss and metric of a model on a split, over the positions that carry weight.

    Args:
        program: the compiled functions.
        state: holds the model.
        source: the data.
        split: ``"validation"`` or ``"test"``.
        batch: rows evaluated at once.

    Returns:
        ``{"loss": nats per position, source.metric: accuracy, plain or scaled, or bits per byte}``.
    """
    sharding = batch_sharding(program.mesh, 0)
    parts = _parts(source.evaluation(split), batch)
    return _figures([program.sums(state, jax.device_put(part, sharding)) for part in parts], source, split)


def evaluate_lanes(program: Program, states: State, source: Source, split: Split, batch: int) -> list[dict[str, float]]:
    """The same for each of the models stacked in ``states``."""
    parts = _parts(source.evaluation(split), batch)
    sums = jax.device_get([program.sums_lanes(states, jax.device_put(part)) for part in parts])
    lanes = len(sums[0].loss)
    return [_figures([jax.tree.map(lambda x, i=i: x[i], s) for s in sums], source, split) for i in range(lanes)]


def _figures(sums: list[Sums], source: Source, split: Split) -> dict[str, float]:
    loss, correct, weight = np.sum(np.asarray(jax.device_get(sums), np.float64), axis=0)
    if source.metric == "bits_per_byte":
        metric = loss / math.log(2) / source.evaluation_bytes(split)
    elif source.metric == "scaled_accuracy":
        metric = (correct / weight - source.chance) / (1 - source.chance)
    else:
        metric = correct / weight
    return {"loss": float(loss / weight), source.metric: float(metric)}


def _parts(rows: Batch, batch: int) -> list[Batch]:
    """The rows cut into batches of one size; rows without weight fill the last."""
    missing = -len(rows.tokens) % batch
    filled = Batch(*(np.pad(np.asarray(array), ((0, missing), (0, 0))) for array in rows))
    return [Batch(*(a[i : i + batch] for a in filled)) for i in range(0, len(filled.tokens), batch)]
