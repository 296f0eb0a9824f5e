"""The comparison as one HTML file: no script, no network, light and dark."""

import json
from html import escape
from itertools import groupby
from pathlib import Path

from ..compare.study import METRICS, Study, Table
from . import plots, words
from .style import CSS, VARIABLES


def write(study: Study, directory: Path) -> Path:
    """Writes ``index.html`` into ``directory``, beside each table's figure as an SVG of its own; returns its path."""
    directory.mkdir(parents=True, exist_ok=True)
    for table in study.tables:
        if table.complete:
            (directory / f"{table.task}-{table.dim}.svg").write_text(picture(study, table))
    path = directory / "index.html"
    path.write_text(page(study))
    return path


def page(study: Study) -> str:
    """The whole page."""
    tasks = [list(group) for _, group in groupby(study.tables, key=lambda table: table.task)]
    seeds = sorted({len(e.fresh) for t in study.tables for e in t.complete})
    facts = [
        f"{len(study.archs)} architectures",
        f"{len(tasks)} {'task' if len(tasks) == 1 else 'tasks'}",
        f"{'–'.join(str(n) for n in (seeds[:1] + seeds[-1:] if len(seeds) > 1 else seeds))} fresh seeds each",
        *([] if study.seconds is None else [f"{study.seconds / 60:.1f} minutes of wall time"]),
    ]
    failures = "".join(f"<p class=bad>{escape(name)} failed: {escape(why)}</p>" for name, why in study.failures.items())
    versions = " · ".join(f"{name} {version}" for name, version in study.versions.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>subquad · {escape(study.name)}</title><style>{CSS}</style></head><body><main>
<header><p class=kicker>subquad compare</p><h1>{escape(study.name)}</h1>
<p class=facts>{escape(" · ".join(facts))}</p></header>
{failures}{"".join(task(study, tables) for tables in tasks)}
<footer><p><code>{escape(study.command)}</code></p><p>{escape(versions)}</p><p>{escape(study.host)}</p></footer>
</main></body></html>
"""


def picture(study: Study, table: Table) -> str:
    """A table's figure as a file that stands alone, such as in a README; it follows light and dark too."""
    return standalone(plots.figures(study, table))


def standalone(figure: str) -> str:
    """A figure of the page with the colours that it refers to."""
    start, end = figure.split(">", 1)
    return f"{start} font-family='sans-serif'><style>{VARIABLES}</style>{end}"


def task(study: Study, tables: list[Table]) -> str:
    """One task: a section a width, and the state plot over them."""
    state = plots.against_state(study, tables)
    figure = f"<div class=figures>{card(f'Quality against state, {len(tables)} widths', state)}</div>" if state else ""
    return "".join(section(study, table, len(tables) > 1) for table in tables) + figure


def section(study: Study, table: Table, wide: bool) -> str:
    """One task at one width."""
    verdict = table.verdict()
    claimed = verdict is not None and verdict.claimed
    figures = [
        card("Training loss", plots.loss_curves(study, table), "every fresh seed thin, their mean thick"),
        card(
            "Choosing the learning rate", plots.lr_curves(study, table), "selection seeds only; the chosen rate ringed"
        ),
        card("Quality against speed", plots.against_speed(study, table), "measured alone after training"),
    ]
    title = escape(table.task) + (f" <span>width {table.dim}</span>" if wide else "")
    return f"""<section><h2>{title}</h2><p class=lead>{escape(table.description)}</p>
<p class="verdict{" won" if claimed else ""}">{escape(words.winner(table))}</p>
<div class=hero>{plots.figures(study, table) if table.complete else ""}</div>
<p class=note>Dots: fresh seeds on the test split. Bar: 95% t interval of the mean. Dashed: baselines
({escape(", ".join(f"{name} {words.figure(x)}" for name, x in table.baselines.items()))}).</p>
{summary(study, table)}{expected(table)}
<div class=figures>{"".join(figures)}</div>{checks(table)}{configs(table)}</section>"""


def card(title: str, figure: str | None, note: str = "") -> str:
    """A figure with its title; nothing if there is no figure."""
    if figure is None:
        return ""
    return f"<figure><figcaption><b>{escape(title)}</b> {escape(note)}</figcaption>{figure}</figure>"


def summary(study: Study, table: Table) -> str:
    """The table of results, best first."""
    verdict = table.verdict()
    rows = []
    for entry in (*table.complete, *(e for e in table.entries if not e.fresh)):
        lead = verdict.differences.get(entry.arch) if verdict else None
        behind = "" if lead is None else words.span(lead).removeprefix("+")
        cost = entry.cost
        seeds = " ".join(f'<span class="{"bad" if s == "diverged" else ""}">{s}</span>' for s in words.seeds(entry))
        cells = [
            f"<th><i style='background:var(--arch-{study.archs.index(entry.arch) % 10})'></i>{escape(entry.arch)}</th>",
            f"<td><b>{words.interval(entry.interval)}</b></td>",
            f"<td class=seeds>{seeds or f'<span class=bad>{words.without_figures(entry)}</span>'}</td>",
            f"<td>{table.solved(entry)}/{len(entry.fresh)}</td><td>{behind}</td>",
            f"<td class='{'bad' if entry.at_edge else ''}'>{words.lr(entry)}</td>",
            f"<td>{words.count(entry.parameters)}</td><td>{words.size(entry.state_bytes)}</td>",
            "<td>–</td><td>–</td><td>–</td><td>–</td>" if cost is None else
            f"<td>{words.rate(cost.train_tokens_per_s)}</td><td>{cost.decode_ms:.2f}</td><td>{cost.peak_mb:.3g}</td>"
            f"<td class=seeds>{escape(', '.join(cost.implementations))}</td>",
        ]  # fmt: skip
        rows.append(f"<tr>{''.join(cells)}</tr>")
    heads = [
        "architecture", f"{METRICS[table.metric][0]}", "each fresh seed", "solved", "behind the leader, paired 95%",
        "lr", "parameters", "state", "train tok/s", "decode ms", "peak MB", "ran by",
    ]  # fmt: skip
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    return f"""<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>
<p class=note>Parameters without the embedding; {escape(words.solved_rule(table))}; state: what decoding keeps per
sequence of evaluation length; decode at batch 1.</p>"""


def expected(table: Table) -> str:
    """What was expected beside what came out."""
    if not table.expected:
        return ""
    items = [
        f"<li class={'good' if outcome.met else 'bad'}><b>{'met' if outcome.met else 'missed'}</b> "
        f"{escape(outcome.text)} <span>{escape(outcome.got)}</span></li>"
        for outcome in table.expected
    ]
    return f"<h3>Expected of this preset</h3><ul class=checks>{''.join(items)}</ul>"


def checks(table: Table) -> str:
    """The rules of fairness, broken ones first and in red."""
    items = [
        f"<li class={'good' if check.holds else 'bad'}><b>{'holds' if check.holds else 'does not hold'}</b> "
        f"{escape(check.rule)} <span>{escape(check.detail)}</span></li>"
        for check in sorted(table.checks, key=lambda check: check.holds)
    ]
    return f"<h3>Why to believe it</h3><ul class=checks>{''.join(items)}</ul>" if items else ""


def configs(table: Table) -> str:
    """Every architecture's configuration, what differs from its own preset, and the data's hash."""
    blocks = []
    for entry in table.entries:
        overrides = ", ".join(f"{name} = {value}" for name, value in entry.overrides.items()) or "none"
        config = escape(json.dumps(entry.config, indent=1))
        blocks.append(
            f"<details><summary>{escape(entry.arch)} <span>differs from its preset by: {escape(overrides)}</span>"
            f"</summary><pre>{config}</pre></details>"
        )
    return f"<h3>Configurations</h3>{''.join(blocks)}<p class=note>data sha256 <code>{escape(table.sha256)}</code></p>"
