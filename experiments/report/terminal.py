"""The comparison as tables on a terminal."""

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from ..compare.study import Study, Table
from . import words


def show(study: Study, console: Console) -> None:
    """Prints every task's table, its verdict, what was expected, and each rule that does not hold."""
    for table in study.tables:
        console.print(grid(table, wide=len(study.tables) > len({t.task for t in study.tables})))
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


def grid(table: Table, wide: bool = False) -> Grid:
    """One task's table, best first."""
    baselines = ", ".join(f"{name} {words.figure(value)}" for name, value in table.baselines.items())
    title = f"{table.task}{f', width {table.dim}' if wide else ''} · {words.metric(table)} · {baselines}"
    out = Grid(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for name in ("architecture", "mean ± 95%", "each fresh seed", "solved", "behind by"):
        out.add_column(name, justify="left" if name == "architecture" else "right", no_wrap=name != "each fresh seed")
    for name in ("lr", "params", "state", "train tok/s", "decode"):
        out.add_column(name, justify="right", no_wrap=True)
    verdict = table.verdict()
    waiting = [entry for entry in table.entries if not entry.fresh]
    for entry in (*table.complete, *waiting):
        lead = verdict.differences.get(entry.arch) if verdict else None
        out.add_row(
            Text(entry.arch, "bold" if verdict and verdict.claimed and entry.arch == verdict.leader else ""),
            words.interval(entry.interval),
            Text(
                " ".join(words.seeds(entry)) or words.without_figures(entry),
                "" if entry.fresh and not entry.diverged else "red",
            ),
            f"{table.solved(entry)}/{len(entry.fresh)}",
            "" if lead is None else words.span(lead).removeprefix("+"),
            Text(words.lr(entry), "red" if entry.at_edge else ""),
            words.count(entry.parameters),
            words.size(entry.state_bytes),
            "–" if entry.cost is None else words.rate(entry.cost.train_tokens_per_s),
            "–" if entry.cost is None else f"{entry.cost.decode_ms:.2f} ms",
        )
    return out
