"""Rows of ``subquad profile gpu``, the file that keeps them, and the table that is made of it."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import UserError
from ...rundir import write_json
from ..workloads import Size

_CHECKOUT = Path(__file__).parents[3]
FOLDER = _CHECKOUT / "experiments" / "records" if (_CHECKOUT / "pyproject.toml").exists() else Path()
"""Where records are kept: with the code, or, where that was installed from a wheel, in the working directory."""
NONE = (
    "No GPU has been measured yet: the GPU kernels were interpreted on a CPU and lowered for an H100, and never ran on "
    "a card. `subquad profile gpu` measures one."
)
OURS = "pallas_gpu"
PEERS = ("xla", "jla mosaic_gpu", "jla chunked", "fla", "cuDNN")
"""What stands beside ``OURS``, in the order of the table's columns."""
SAME = ("device", "versions", "git")
"""What figures in one file have in common."""


class Row(NamedTuple):
    """One contestant at one op, size and pass; the first four fields are its key."""

    op: str
    size: str
    """``B,T,H,K,V`` of an op, ``B,T`` of a model's step."""
    passed: str
    """forward, forward+backward, or step."""
    by: str
    milliseconds: float | None = None
    floor: float | None = None
    """Milliseconds that the card needs at least for the bytes moved or the products made."""
    error: float | None = None
    """Of y, or of the worst gradient where there is a backward pass."""
    tokens_per_s: float | None = None
    utilisation: float | None = None
    """Model FLOPs over the maker's peak."""
    note: str = ""
    """What ran, where that is not plain."""
    reason: str = ""
    """Why there is no figure."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What it is a figure of."""
        return self.op, self.size, self.passed, self.by

    def line(self) -> str:
        """As it is printed when it is measured."""
        named = f"{self.op:20}{self.size:20}{self.passed:18}{self.by:16}"
        if self.milliseconds is None:
            return f"{named}no figure: {self.reason}"
        cells = [f"{self.milliseconds:10.3f} ms"]
        if self.floor is not None:
            cells.append(f"floor {self.floor:8.3f} ms {self.floor / self.milliseconds:5.1%}")
        if self.error is not None:
            cells.append(f"error {self.error:.1e}")
        if self.tokens_per_s is not None:
            cells.append(f"{self.tokens_per_s:,.0f} tokens/s")
        if self.utilisation is not None:
            cells.append(f"MFU {self.utilisation:.1%}")
        return "  ".join([named + cells[0], *cells[1:], *filter(None, [self.note])])


def label(size: Size) -> str:
    """``B,T,H,K,V``."""
    return ",".join(map(str, (size.B, size.T, size.H, size.K, size.V)))


class Record:
    """Rows by key, written to a file after each one, so that an interrupted run loses none.

    Raises:
      UserError: the file holds figures of another device, of other versions, or of another commit.
    """

    def __init__(self, path: Path | None, host: Mapping[str, Any]):
        self.path, self.rows = path, dict[tuple[str, str, str, str], Row]()
        self.content = dict(host) | {"begun": datetime.now(UTC).isoformat(timespec="seconds"), "finished": False}
        if path is not None and path.exists():
            found = read(path)
            if name := next((name for name in SAME if found.get(name) != json.loads(json.dumps(host[name]))), None):
                raise UserError(f"{path} is of another {name}: {found.get(name)}, not {host[name]}; name another file")
            self.content["begun"] = found["begun"]
            rows = [Row(**row) for row in found["rows"]]
            self.rows = {row.key: row for row in rows if row.milliseconds is not None}

    def add(self, row: Row) -> None:
        """Keeps a row."""
        self.rows[row.key] = row
        self._write()

    def finish(self) -> None:
        """Says that nothing is missing."""
        self.content["finished"] = True
        self._write()

    def _write(self) -> None:
        if self.path is not None:
            rows = [_finite(row._asdict()) for row in self.rows.values()]
            write_json(self.path, self.content | {"rows": rows})


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: an error that is none becomes a note."""
    if row["error"] is not None and not math.isfinite(row["error"]):
        return row | {"error": None, "note": f"error {row['error']} {row['note']}".strip()}
    return row


def read(path: Path) -> dict[str, Any]:
    """What a file holds."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not readable as a record: {error}") from error


def where(host: Mapping[str, Any], folder: Path = FOLDER) -> Path:
    """The file of this run: one that was begun with the same device, versions and commit, or a new one."""
    for path in reversed(_files(folder)):
        found = read(path)
        if not found["finished"] and all(found.get(name) == json.loads(json.dumps(host[name])) for name in SAME):
            return path
    device = re.sub(r"\W+", "-", host["device"]).strip("-").lower()
    return folder / f"gpu-{device}-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"


def _files(folder: Path) -> list[Path]:
    """The records of GPUs, oldest first."""
    return sorted(folder.glob("gpu-*.json"), key=lambda path: read(path)["begun"])


def table(folder: Path = FOLDER) -> str:
    """The newest record of a GPU in Markdown, for the README; a sentence where there is none.

    A cell has milliseconds of forward and backward, or thousands of tokens a second of a model's step; below an op's
    sizes stands how many times longer each takes than our kernel, in geometric mean over the sizes that both take.
    """
    files = [path for path in _files(folder) if read(path)["platform"] == "gpu"]
    if not files:
        return NONE
    found = read(files[-1])
    rows = [Row(**row) for row in found["rows"]]
    card = f"{found['device']}, driver {found['driver']}, jax {found['versions']['jax']}, {found['begun'][:10]}"
    limits = f"copies {found['bandwidth'] / 1e9:,.0f} GB/s, bfloat16 products {found['rate'] / 1e12:,.0f} TFLOP/s"
    by = [name for name in (OURS, *PEERS) if any(row.by == name for row in rows)]
    lines = [f"{card}: {limits}. Milliseconds, forward and backward; in brackets the largest relative error.", ""]
    lines += [f"| op | B,T,H,K,V | {' | '.join(by)} | of floor |", "|---|---|" + "--:|" * (len(by) + 1)]
    for op in dict.fromkeys(row.op for row in rows if row.passed == "forward+backward"):
        mine = [row for row in rows if (row.op, row.passed) == (op, "forward+backward")]
        for size in dict.fromkeys(row.size for row in mine):
            cells = {row.by: row for row in mine if row.size == size}
            ours = cells.get(OURS)
            floor = "–" if ours is None or not ours.milliseconds else f"{(ours.floor or 0) / ours.milliseconds:.0%}"
            lines.append(f"| `{op}` | {size} | {' | '.join(_cell(cells.get(name)) for name in by)} | {floor} |")
        if ratios := {name: mean for name in by if (mean := ratio(mine, name)) is not None}:
            times = (f"**{ratios[name]:.2f}x**" if name in ratios else "–" for name in by)
            lines.append(f"| | over {OURS} | {' | '.join(times)} | |")
    if steps := [row for row in rows if row.passed == "step"]:
        lines += ["", "| training step | B,T | by | tokens/s | MFU | |", "|---|---|---|--:|--:|---|"]
        for row in steps:
            figures = f"{row.tokens_per_s:,.0f}" if row.tokens_per_s else "–"
            used = f"{row.utilisation:.1%}" if row.utilisation else "–"
            lines.append(f"| {row.op} | {row.size} | {row.by} | {figures} | {used} | {row.note or row.reason} |")
    return "\n".join(lines)


def _cell(row: Row | None) -> str:
    if row is None or row.milliseconds is None:
        return "–"
    return f"{row.milliseconds:.2f}" + ("" if row.error is None else f" ({row.error:.0e})".replace("e-0", "e-"))


def ratio(rows: Sequence[Row], by: str) -> float | None:
    """Milliseconds over our kernel's: the geometric mean over the sizes at which both have figures."""
    times = {row.key: row.milliseconds for row in rows if row.milliseconds is not None}
    pairs = [(times.get((*key[:3], by)), mine) for key, mine in times.items() if key[3] == OURS]
    logs = [math.log(other / mine) for other, mine in pairs if other]
    return math.exp(sum(logs) / len(logs)) if logs else None
