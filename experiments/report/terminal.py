"""The comparison as tables on a terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from ..compare.stats import Verdict
from ..compare.study import Entry, Study, Table
from . import words


def show(study: Study, console: Console) -> None:
    """Prints every task's table, its verdict, what was expected, and each rule that does not hold."""
    for table in study.tables:
        wide = len(study.tables) > len({t.task for t in study.tables})
        for part in grids(table, wide, console):
            console.print(part)
        console.print(Text(words.winner(table)))
        for outcome in table.expected:
            mark = Text("met   ", "green") if outcome.met else Text("MISSED", "bold red")
            console.print(Text.assemble("  expected ", mark, f" {outcome.text}: {outcome.got}"), soft_wrap=True)
        broken = [check for check in table.checks if not check.holds]
        for check in broken:
            console.print(Text(f"  does not hold: {check.rule}: {check.detail}", "red"), soft_wrap=True)
        held = len(table.checks) - len(broken)
        console.print(Text(f"  {held} of {len(table.checks)} rules of fairness hold", "dim"))
        console.print()
    for name, message in study.failures.items():
        console.print(Text(f"{name} failed: {message}", "red"), soft_wrap=True)


RESULTS = ("mean ± 95%", "each fresh seed", "solved", "behind by")
COSTS = ("lr", "params", "state", "train tok/s", "decode")


def grids(table: Table, wide: bool, console: Console) -> list[Grid]:
    """One task's table, best first; where the console is too narrow for it, what came out above what it costs."""
    baselines = ", ".join(f"{name} {words.figure(value)}" for name, value in table.baselines.items())
    title = f"{table.task}{f', width {table.dim}' if wide else ''} · {words.metric(table)} · {baselines}"
    whole = grid(table, title, (*RESULTS, *COSTS))
    if console.measure(whole, options=console.options.update_width(1000)).maximum <= console.width:
        return [whole]
    return [grid(table, title, RESULTS), grid(table, "", COSTS)]


def grid(table: Table, title: str, columns: Sequence[str]) -> Grid:
    """The columns named, behind the architectures."""
    out = Grid(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    out.add_column("architecture", no_wrap=True)
    for name in columns:
        out.add_column(name, justify="right", no_wrap=name != "each fresh seed")
    verdict = table.verdict()
    waiting = [entry for entry in table.entries if not entry.fresh]
    for entry in (*table.complete, *waiting):
        won = verdict and verdict.claimed and entry.arch == verdict.leader
        cells = row(table, entry, verdict)
        out.add_row(Text(entry.arch, "bold" if won else ""), *(cells[name] for name in columns))
    return out


def row(table: Table, entry: Entry, verdict: Verdict | None) -> dict[str, str | Text]:
    """One architecture's cells by column."""
    lead = verdict.differences.get(entry.arch) if verdict else None
    seeds = " ".join(words.seeds(entry)) or words.without_figures(entry)
    return {
        "mean ± 95%": words.interval(entry.interval),
        "each fresh seed": Text(seeds, "" if entry.fresh and not entry.diverged else "red"),
        "solved": f"{table.solved(entry)}/{len(entry.fresh)}",
        "behind by": "" if lead is None else words.span(lead).removeprefix("+"),
        "lr": Text(words.lr(entry), "red" if entry.at_edge else ""),
        "params": words.count(entry.parameters),
        "state": words.size(entry.state_bytes),
        "train tok/s": "–" if entry.cost is None else words.rate(entry.cost.train_tokens_per_s),
        "decode": "–" if entry.cost is None else f"{entry.cost.decode_ms:.2f} ms",
    }
