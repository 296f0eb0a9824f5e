"""Where a run's figures go: ``metrics.jsonl``, which is the truth, and sinks that only show it."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from .errors import UserError

Row = Mapping[str, Any]
"""Figures by name, of the step under ``"step"``."""


@runtime_checkable
class Sink(Protocol):
    """Takes the rows of a run as they come, in the order of their steps."""

    def write(self, row: Row) -> None:
        """Takes one row."""
        ...

    def close(self) -> None:
        """The run is over, or stops here for now."""
        ...


class MetricsFile:
    """The rows of a run as JSON lines. Figures that are not finite are written as null.

    Args:
        path: the file; rows are appended.
        step: rows past this step, and a line cut short by a crash, are removed first.
    """

    def __init__(self, path: Path, step: int):
        path.touch()
        with path.open("r+b") as file:
            file.truncate(_end(file, step))
        self._file = path.open("a", encoding="utf-8")

    def write(self, row: Row) -> None:
        """Adds a row."""
        self._file.write(json.dumps(finite(row), allow_nan=False) + "\n")

    def sync(self) -> None:
        """Returns when all rows are on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Writes what is left."""
        try:
            self.sync()
        finally:
            self._file.close()


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a metrics file; a last line cut short is left out."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


class TensorBoard:
    """A sink for TensorBoard.

    Args:
        directory: the run's directory; event files go to ``tensorboard/`` in it.

    Raises:
        UserError: tensorboardX is not installed.
    """

    def __init__(self, directory: Path):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise UserError("TensorBoard needs an extra: pip install 'subquad[tensorboard]'") from error
        self._open, self._writer = SummaryWriter, None
        self._directory = str(directory / "tensorboard")

    def write(self, row: Row) -> None:
        """Adds the row's figures; the first row of a resumed run hides those that the crash left past it."""
        self._writer = self._writer or self._open(self._directory, purge_step=row["step"])
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Closes the event file."""
        if self._writer:
            self._writer.close()


def finite(value: Any) -> Any:
    """The same with each number that is not finite replaced by None: JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _end(file: Any, step: int) -> int:
    """Where the rows up to ``step`` end, in bytes: at the first later row or torn line."""
    end = 0
    for line in file:
        try:
            row = json.loads(line)
        except ValueError:
            return end
        if not line.endswith(b"\n") or row["step"] > step:
            return end
        end += len(line)
    return end
