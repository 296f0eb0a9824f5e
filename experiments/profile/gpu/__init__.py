"""Ops and training steps on a GPU, beside the card's limits and other libraries, in one run: ``subquad profile gpu``.

A time is the median over rounds of many calls that queue up, over inputs that take turns, so that neither a launch nor
a warm cache counts. Beside it stand the least time that the card, as measured, needs for the bytes or the products, and
the relative error against the definition in float64, on fewer tokens and heads. Each row is written as soon as it is
there: a run that was stopped goes on where it was, and what does not run says why and stops nothing.

Peers take part where they are installed; jax-linear-attention wants jax 0.11.2. On a machine that has no network, from
wheels that were fetched on one like it:

    pip wheel --wheel-dir wheels '.[lab,cuda]' jax==0.11.2 jax-linear-attention==0.1.0 flash-linear-attention torch
    python3.12 -m venv bench
    bench/bin/pip install --no-index --find-links wheels 'subquad[lab,cuda]' jax-linear-attention
    bench/bin/pip install --no-index --find-links wheels flash-linear-attention torch
    bench/bin/subquad profile gpu

With ``--ops`` and one ``--record`` the whole can be measured a few ops at a time, in the order that matters.

The README's table is what ``subquad profile gpu --markdown`` makes of the newest record.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ...errors import UserError, nearest
from ...rundir import git_revision, installed, versions
from . import peers, step
from .isolate import isolated
from .measure import FULL, QUICK, card
from .ops import OPS
from .plan import Plan, attempts
from .record import OURS, PEERS, Record, Row, ratio, table, where

__all__ = ["show", "table"]


def show(ops: Sequence[str] = (), tiny: bool = False, record: Path | None = None) -> None:
    """Measures, and prints a row as soon as it is measured.

    Args:
      ops: of ``ops.OPS`` and ``step.MODELS``; none: all.
      tiny: at toy size. Without a GPU that is so by itself.
      record: a JSON file that gets the rows; one of the same device, versions and commit is continued. By default a new
        one among the records of this library on a GPU, and none elsewhere.

    Raises:
      UserError: an unknown op, no folder for the record, or a record of something else.
    """
    known = (*OPS, *step.MODELS)
    for name in ops:
        if name not in known:
            raise UserError(f"there is no {name!r}: {nearest(name, known)}")
    if record is not None and not record.absolute().parent.is_dir():
        raise UserError(f"there is no folder {record.parent} for the record")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peers under PyTorch need memory too
    console, device = Console(), jax.devices()[0]
    on_card = device.platform == "gpu"
    if not on_card and not tiny:
        console.print("there is no GPU: toy sizes on the CPU, whose times say nothing of a GPU")
    tiny = tiny or not on_card
    host = described()
    kept = Record(record or (where(host) if on_card and not tiny else None), host)
    limits = card(QUICK if tiny else FULL)
    kept.content |= limits._asdict()
    console.print(
        f"{device.device_kind}: copies {limits.bandwidth / 1e9:,.0f} GB/s, bfloat16 products "
        f"{limits.rate / 1e12:,.2f} TFLOP/s",
        highlight=False,
    )
    plan = Plan(tuple(ops or known), tiny, limits)
    keys = list(plan.rows())
    left = [key for key in keys if key not in kept.rows]
    for key in keys:
        if key in kept.rows:
            console.print(kept.rows[key].line(), markup=False, highlight=False, soft_wrap=True)
    found = isolated(plan, left) if on_card else (row for row, _ in attempts(plan, [*kept.rows]))
    with Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=28), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        running = bar.add_task("rows", total=len(keys), completed=len(keys) - len(left))
        for row in found:
            kept.add(row)
            bar.console.print(row.line(), markup=False, highlight=False, soft_wrap=True)
            bar.advance(running)
    kept.finish()
    for line in summary([kept.rows[key] for key in keys]):
        console.print(line, highlight=False)
    if kept.path is not None:
        console.print(f"{kept.path}", highlight=False, soft_wrap=True)


def described() -> dict[str, Any]:
    """What the figures are of: device, driver, versions and commit."""
    device = jax.devices()[0]
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        driver = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        driver = ""
    return {
        "device": device.device_kind, "platform": device.platform, "driver": driver,
        "runtime": device.client.platform_version, "versions": versions() | installed(peers.PACKAGES),
        "git": git_revision(),
    }  # fmt: skip


def summary(rows: Sequence[Row]) -> list[str]:
    """Of each op, how many times longer the others take than our kernel."""
    lines = []
    for op in dict.fromkeys(row.op for row in rows):
        mine = [row for row in rows if row.op == op and row.passed != "forward"]
        times = ((name, ratio(mine, name)) for name in PEERS)
        if said := [f"{name} {times:.2f}x" for name, times in times if times is not None]:
            lines.append(f"{op:20}over {OURS}, forward and backward, geometric mean: {', '.join(said)}")
    return lines
