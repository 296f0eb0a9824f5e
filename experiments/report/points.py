"""A sweep as a table, and as Parquet rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table

from ..compare.rows import flat
from ..compare.study import METRICS
from ..progress import duration
from ..sweep import Estimate, Point


def plan(points: Sequence[Point], estimate: Estimate) -> None:
    """Lists the points and how long those that wait will take."""
    console = Console()
    grid = Table("point", "steps", "state", box=box.SIMPLE_HEAD, pad_edge=False)
    for point in points:
        grid.add_row(point.name, f"{point.run.steps:,}", "finished" if point.finished else "waits")
    console.print(grid)
    waiting = sum(not point.finished for point in points)
    left = f"about {duration(estimate.seconds)}, {estimate.source}" if waiting else "nothing left to run"
    console.print(f"{waiting} of {len(points)} points to run: {left}", highlight=False, soft_wrap=True)


def show(points: Sequence[Point], root: Path, failures: dict[str, str]) -> None:
    """Prints the finished points, best first, and writes ``rows.parquet``; different data are never ranked together."""
    console = Console()
    rows: list[dict[str, Any]] = [{"name": point.name} | flat(point) for point in points if point.finished]
    for sha in dict.fromkeys(row["data_sha256"] for row in rows):
        of_data = [row for row in rows if row["data_sha256"] == sha]
        metrics = [name for name in METRICS if of_data[0].get(f"test_{name}") is not None]
        metric = (*metrics, "loss")[0]
        grid = Table(title=f"data sha256 {sha[:12]}…", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("point", "lr", "seed", "train loss", "validation loss", f"test {metric}", "seconds"):
            grid.add_column(name, justify="left" if name == "point" else "right")
        for row in sorted(of_data, key=lambda row: (row["validation_loss"] is None, row["validation_loss"] or 0)):
            figures = [row["train_loss"], row["validation_loss"], row[f"test_{metric}"]]
            shown = ["[red]diverged[/]" if row["diverged"] else "–" if x is None else f"{x:.4f}" for x in figures]
            grid.add_row(row["name"], f"{row['lr']:g}", str(row["seed"]), *shown, f"{row['seconds']:.1f}")
        console.print(grid)
    for name, message in failures.items():
        console.print(f"[red]{name} failed:[/] {message}", highlight=False, soft_wrap=True)
    if rows:
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(root / "rows.parquet")
        console.print(str(root / "rows.parquet"), highlight=False, soft_wrap=True)
