"""The TPU kernels' cycles as a document: ``python -m subquad.experiments.report.tpu`` writes ``experiments/TPU.md``."""

import json
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from ..profile.tpu import Row, both, over_floor
from .behaviour import HOME, RECORDS

RECORD = RECORDS / "tpu.json"
DOCUMENT = HOME / "TPU.md"

INTRO = """# Cycles of the TPU kernels

Counted in the schedules of the TPU compiler, on a machine without a TPU, and per token and head: a forward pass /
a forward with a backward pass. bfloat16 q, k, v, x and outputs, float32 gates, no segments. Each op stands where a
model has it: projections and per-head norms before it, a projection after it.

- kernels: bundles of instructions, one a cycle. Waits for copies between memories are not in them.
- relayout: what the memory takes for the copies and transposes with which XLA brings arrays into a kernel's layout and
  back; an array that it fetches into vector memory as it lies does not count. Nor does what else XLA computes around a
  kernel, as other libraries have it do; its arrays are among the temporaries.
- floors: the memory's for arguments and results, each once a pass; the matrix unit's for the products that these
  kernels make; the vector unit's, where it is counted, for the arithmetic that the recurrence cannot do without.
- over floor: kernels and relayout over the largest of the floors, and 1 where that is more.
- spill: slots for registers that are stored and loaded again, over the cycles.
- temporaries: bytes that XLA allocates, among them the op's own arguments, which are made in the same program; and how
  many times what the op's arguments and results take.

Ops without heads have D = H K channels, and count as H heads of K. Under an op are the kernels of other libraries that
compute the same, with the same arguments.

Written by `python -m subquad.experiments.report.tpu` from `records/tpu.json`, which is that of
`subquad profile tpu --record experiments/records/tpu.json` with the extra `peers` installed.
"""
HEAD = (
    "op", "kernels", "relayout", "both", "memory floor", "matrix floor", "vector floor", "over floor", "spill",
    "temporaries, MB", "of in+out",
)  # fmt: skip


def document(record: dict[str, Any]) -> str:
    """The document: a table a generation and shape."""
    lines = [INTRO]
    place = lambda row: (row["TPU"], *(row[axis] for axis in "BTHKV"))  # noqa: E731
    for (generation, *shape), rows in groupby(record["rows"], place):
        shape = ", ".join(f"{n:,}" for n in shape)
        lines += [f"## {generation}, (B, T, H, K, V) = ({shape})", "", f"| {' | '.join(HEAD)} |"]
        lines += ["|---" + "|--:" * (len(HEAD) - 1) + "|"]
        lines += [line(list(passes)) for _, passes in groupby(rows, lambda row: row["op"])]
        lines.append("")
    said = ", ".join(f"{name} {version}" for name, version in record["versions"].items() if version)
    return "\n".join([*lines, f"Versions: {said}.", ""])


def line(passes: Sequence[Row]) -> str:
    """One op's row: its passes side by side."""
    first = passes[0]
    if all("missing" in row for row in passes):
        return f"| {first['op']} | {first['missing']} |" + " |" * (len(HEAD) - 2)
    figures: Sequence[Callable[[Row], str]] = (
        *((lambda row, name=name: f"{row[name]:.2f}") for name in ("kernels", "relayout")),
        lambda row: f"{both(row):.2f}",
        *((lambda row, name=f"{unit} floor": f"{row[name]:.2f}") for unit in ("memory", "matrix")),
        lambda row: f"{row['vector floor']:.2f}" if row["vector floor"] else "–",
        lambda row: f"{over_floor(row):.2f}",
        lambda row: f"{row['spill slots']:.0%}",
        lambda row: f"{row['temporary bytes'] / 1e6:,.0f}",
        lambda row: f"{row['temporary bytes'] / row['in+out bytes']:.2f}",
    )
    cells = [" / ".join("–" if "missing" in row else figure(row) for row in passes) for figure in figures]
    return f"| {first['op']} | {' | '.join(cells)} |"


if __name__ == "__main__":
    DOCUMENT.write_text(document(json.loads(RECORD.read_text())))
