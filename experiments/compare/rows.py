"""A comparison as Parquet: one row a point."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from ..sweep import Point, digest
from .cells import cells
from .run import read
from .study import METRICS


def write(root: Path) -> Path:
    """Writes ``rows.parquet``: one row for every finished point, selection included.

    Rows carry their data's SHA-256; figures over different data are never averaged together.
    """
    comparison, _ = read(root)
    rows: list[dict[str, Any]] = []
    for cell in cells(comparison, root):
        _, choice, finished = cell.progress()
        for trial, p in sorted(finished.items()):
            rows.append(
                {
                    "task": cell.task.name,
                    "arch": cell.contestant.arch,
                    "stage": trial.stage,
                    "lr_at_edge": bool(choice and choice.at_edge),
                    "heads": cell.task.heads,
                    "non_embedding_parameters": cell.contestant.parameters,
                }
                | flat(p)
            )
    path = root / "rows.parquet"
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(path)
    return path


def flat(p: Point) -> dict[str, Any]:
    """A finished point as one row: settings, figures, data and versions."""
    run, result = p.run, p.result()
    record = json.loads((p.directory / "run.json").read_text())
    row = {
        "lr": run.optim.lr, "seed": run.seed, "data_seed": run.order, "steps": run.steps, "batch": run.batch,
        "dim": run.model.dim, "depth": run.model.depth, "vocab": run.model.vocab, "embed_std": run.model.embed_std,
        "parameters": run.model.param_count(), "train_loss": result["loss"], "diverged": result["diverged"],
        "bad_steps": result["bad_steps"], "seconds": result["seconds"], "config_hash": digest(run),
        "data_sha256": record["data_sha256"], "directory": p.directory.name,
    }  # fmt: skip
    for split in ("validation", "test"):
        row |= {f"{split}_{name}": result[split].get(name) for name in ("loss", *METRICS)}
    return row | {f"version_{name}": version for name, version in record["versions"].items()}
