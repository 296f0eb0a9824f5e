"""Published behaviours beside ours: a finished comparison is kept as a small record, and the records make a document.

``python -m subquad.experiments.report.behaviour [DIR ...]`` keeps the comparisons in these directories, and then writes
``experiments/BEHAVIOUR.md`` anew from all that are kept. A comparison of some of a preset's architectures (``--archs``)
adds to what is kept of the others.
"""

import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..compare.cells import cells
from ..compare.collect import collect, met
from ..compare.run import read
from ..compare.settings import Task
from ..compare.study import METRICS, Entry, Table
from ..configs import COMPARISONS
from ..metrics import finite
from . import words

HOME = Path(__file__).parents[1]
RECORDS = HOME / "records"
DOCUMENT = HOME / "BEHAVIOUR.md"

INTRO = """# What the papers say, and what came out here

Each section is one comparison at a small scale. What counts as solved and what is expected stand in its preset and were
not changed after a run; sizes, steps and learning rates were set after shorter trials, which the section tells of.
Figures are from the test split and seeds that no choice was made on. A published figure is the paper's, at its size and
length of training: it is no bound.

Not recorded: `modular`, which has 76 times the tokens of `parity` a run, more layers and twice the width: at the 37
seconds of one core that DeltaNet takes for a run of `parity`, its 42 runs or more are two days of one core at least.

Written by `python -m subquad.experiments.report.behaviour` from `records/*.json`.
"""


def keep(root: Path) -> dict[str, Any]:
    """What is kept of a comparison: every figure, what was expected, versions and time; no curves, no costs."""
    comparison, _ = read(root)
    study = collect(root)
    tasks = {task.name: task for task in comparison.tasks}
    results = [p.result() for cell in cells(comparison, root) for p in cell.progress()[2].values()]
    return {
        "name": study.name,
        "command": f"subquad compare --preset {study.name}",
        "host": study.host,
        "versions": {name: version for name, version in study.versions.items() if name != "git"},
        "runs": len(results),
        "minutes": round(sum(result["seconds"] for result in results) / 60, 1),
        "tables": [kept_table(table, tasks[table.task]) for table in study.tables],
    }


def joined(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """``new`` with what it does not measure again of ``old``: architectures of the same tasks on the same data."""
    olds = {(table["task"], table["data_sha256"]): table["entries"] for table in old["tables"]}
    if {(table["task"], table["data_sha256"]) for table in new["tables"]} != set(olds):
        return new
    tables, added = [], False
    for table in new["tables"]:
        names = {entry["arch"] for entry in table["entries"]}
        kept = [entry for entry in olds[table["task"], table["data_sha256"]] if entry["arch"] not in names]
        tables.append(table | {"entries": [*kept, *table["entries"]]})
        added |= bool(kept)
    sums = {key: round(old[key] + new[key], 1) for key in ("runs", "minutes")} if added else {}
    return new | {"tables": tables} | sums


def kept_table(table: Table, task: Task) -> dict[str, Any]:
    """One table of a record."""
    expected = {
        e.arch: {"text": outcome.text.removeprefix(e.arch).strip(), "met": outcome.met, "published": e.published}
        for e in task.expectations
        if (outcome := met(e, table)) is not None
    }
    return {
        "task": table.task,
        "metric": table.metric,
        "data_sha256": table.sha256,
        "description": table.description,
        "baselines": table.baselines,
        "solved": words.solved_rule(table),
        "broken_rules": [
            f"{check.rule}: {check.detail}"
            for check in table.checks
            if not check.holds and not check.rule.startswith("costs")  # which are not kept
        ],
        "entries": [kept_entry(table, entry) | {"expected": expected.get(entry.arch)} for entry in table.entries],
    }


def kept_entry(table: Table, entry: Entry) -> dict[str, Any]:
    """One architecture of a record."""
    return {
        "arch": entry.arch,
        "parameters": entry.parameters,
        "state_bytes": entry.state_bytes,
        "lr": words.lr(entry),
        "validation_losses": {f"{lr:g}": finite({"loss": losses[0]})["loss"] for lr, losses in entry.scores.items()},
        "test": {str(seed): figure for seed, figure in sorted(entry.fresh.items())},
        "diverged": list(entry.diverged),
        "solved": table.solved(entry),
    }


def document(records: Sequence[dict[str, Any]]) -> str:
    """The document, a section a record."""
    return "\n".join([INTRO, *(section(record) for record in records)])


def section(record: dict[str, Any]) -> str:
    """One record: what its preset says, its tables, and what it ran on."""
    name = record["name"]
    said = inspect.getdoc(COMPARISONS[name]) or ""
    lines = [f"## {name}", "", said.replace("``", "`"), ""]
    for table in record["tables"]:
        lines += [f"{table['description']} Test {METRICS[table['metric']][0]}; {table['solved']}.", ""]
        lines += ["| architecture | lr | each seed | solved | expected mean | came out | published |"]
        lines += ["|---|--:|--:|--:|--:|---|--:|", *(line(entry) for entry in table["entries"]), ""]
        lines += [f"A rule of fairness that does not hold: {rule}.\n" for rule in table["broken_rules"]]
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    lines += [
        f"`{record['command']}`: {record['runs']} runs, which took {record['minutes']:g} minutes together, each on one "
        f"core of a machine with much else to do ({record['host']}; {versions}).",
        "",
    ]
    return "\n".join(lines)


def line(entry: dict[str, Any]) -> str:
    """One architecture's row."""
    expected = entry["expected"] or {"text": "–", "met": None, "published": None}
    verdict = {True: "as expected", False: "**not as expected**", None: "–"}[expected["met"]]
    published = "–" if expected["published"] is None else words.figure(expected["published"])
    seeds = " ".join(
        "diverged" if int(seed) in entry["diverged"] else words.figure(x) for seed, x in entry["test"].items()
    )
    count = f"{entry['solved']}/{len(entry['test'])}"
    cells = (f"`{entry['arch']}`", entry["lr"], seeds, count, expected["text"], verdict, published)
    return f"| {' | '.join(cells)} |"


def main(directories: Sequence[str]) -> None:
    """Keeps the comparisons of the directories, and writes the document."""
    for directory in directories:
        record = keep(Path(directory))
        path = RECORDS / f"{record['name']}.json"
        if path.exists():
            record = joined(json.loads(path.read_text()), record)
        path.write_text(json.dumps(record, indent=1) + "\n")
    DOCUMENT.write_text(document(records()))


def records() -> list[dict[str, Any]]:
    """What is kept, in the order of the presets."""
    kept = {path.stem: json.loads(path.read_text()) for path in RECORDS.glob("*.json")}
    return [kept[name] for name in COMPARISONS if name in kept]


if __name__ == "__main__":
    main(sys.argv[1:])
