"""The table of ``subquad list``: every layer and every published architecture, what each costs and how exact it is."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from ..archs.table import ARCHS
from ..layers.table import CHANNEL_MIXERS, MIXERS

DIM = 1024
"""The model width at which layers are listed."""
T = 2048
"""The sequence length at which operations and state are listed."""

SOURCE = re.compile(r"(?P<authors>[A-Z][^()]*?) \((?P<year>\d{4})\).*?arXiv (?P<id>\d{4}\.\d{4,5})", re.DOTALL)
ACCURACY = Path(__file__).parent / "records" / "accuracy.json"
"""The errors that ``tests/accuracy.py`` measured."""


class Paper(NamedTuple):
    """Where something was published."""

    cite: str
    arxiv: str


class Errors(NamedTuple):
    """The largest relative errors of a layer in float32; None where there is nothing to compare it with."""

    definition: float | None
    laws: float | None
    transformers: float | None


class Row(NamedTuple):
    """One layer, or one size of an architecture. Operations are those of a forward pass."""

    name: str
    paper: Paper
    parameters: int
    flops_per_token: float
    state_bytes: int
    grows: bool
    """Whether the state is larger at twice the length."""
    errors: Errors | None = None
    """Of a layer."""


def layer_rows() -> Iterator[Row]:
    """The token mixers, then the channel mixers, with the settings that their configs default to."""
    record = json.loads(ACCURACY.read_text("utf-8"))["layers"]
    errors = {name: _errors(record.get(name, {})) for name in (*MIXERS, *CHANNEL_MIXERS)}
    for name, config in MIXERS.items():
        c, source = config(), _source(config)
        state, grows = c.state_bytes(DIM, T), c.state_bytes(DIM, 2 * T) > c.state_bytes(DIM, T)
        yield Row(name, source, c.param_count(DIM), c.flops_per_token(DIM, T), state, grows, errors[name])
    for name, config in CHANNEL_MIXERS.items():
        c, source = config(), _source(config)
        yield Row(name, source, c.param_count(DIM), c.flops_per_token(DIM), 0, False, errors[name])


def arch_rows() -> Iterator[Row]:
    """Every size of every published architecture."""
    for arch in ARCHS.values():
        for size, lm in arch.sizes.items():
            state, grows = lm.state_bytes(T), lm.state_bytes(2 * T) > lm.state_bytes(T)
            yield Row(f"{arch.name} {size}", paper(arch.paper), lm.param_count(), lm.flops_per_token(T), state, grows)


def list_table(markdown: bool) -> str:
    """Both tables, for a terminal or as the README holds them.

    Args:
        markdown: whether to give Markdown, with links to the papers; else text as wide as the terminal.
    """
    render = _markdown if markdown else _terminal
    layers = render(f"Layers at width {DIM:,}, {T:,} tokens", "layer", list(layer_rows()))
    archs = render(f"Architectures at {T:,} tokens", "preset", list(arch_rows()))
    if markdown:
        title, _, table = archs.partition("\n")
        archs = f"<details><summary>{title}</summary>\n{table}\n\n</details>"
    cost = (
        "FLOPs are those of a token's forward pass. State is what decoding keeps per sequence, in float32; "
        f"↑: it grows past {T:,} tokens."
    )
    errors = (
        "The last three columns are the largest relative errors in float32: against the layer's equations in float64; "
        "of steps, cuts, packed documents and padding, against whole calls; "
        "and against the models of transformers that have the layer."
    )
    return f"{layers}\n\n{errors}\n\n{archs}\n\n{cost}\n"


def paper(text: str) -> Paper:
    """The first paper that a citation such as ``"Dao & Gu (2024), ..., arXiv 2405.21060"`` names."""
    found = SOURCE.search(text)
    if found is None:
        raise ValueError(f"no paper with an arXiv id in {text!r}")
    authors = " ".join(found["authors"].split())
    if authors.count(",") + authors.count("&") > 1:
        authors = f"{authors.split(',')[0]} et al."
    return Paper(f"{authors} ({found['year']})", found["id"])


def si(value: float | int, unit: str = "") -> str:
    """Three digits and a prefix: ``134 M``, ``4.19 MB``."""
    for prefix, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.{3 - len(str(int(value / scale)))}f} {prefix}{unit}"
    return f"{value:.0f} {unit}".strip()


def _source(config: type) -> Paper:
    """The paper that the docstring of a config's layer gives as its source."""
    layer = getattr(sys.modules[config.__module__], config.__name__.removesuffix("Config"))
    return paper(layer.__doc__.partition("Source: ")[2])


def _errors(found: dict) -> Errors:
    """What the record holds of one layer."""
    return Errors(found.get("definition"), found.get("laws"), max(found.get("transformers", {}).values(), default=None))


def _header(what: str, rows: list[Row]) -> tuple[str, ...]:
    errors = rows[0].errors
    return (what, "paper", "parameters", "FLOPs/token", "state", *(() if errors is None else errors._fields))


def _cells(row: Row) -> tuple[str, ...]:
    state = "–" if not row.state_bytes else si(row.state_bytes, "B") + (" ↑" if row.grows else "")
    errors = ("–" if error is None else f"{error:.1e}".replace("e-0", "e-") for error in row.errors or ())
    return si(row.parameters).replace("G", "B"), si(row.flops_per_token), state, *errors


def _markdown(title: str, what: str, rows: list[Row]) -> str:
    header = _header(what, rows)
    lines = [f"{title}:", "", f"| {' | '.join(header)} |", f"|---|---|{'--:|' * (len(header) - 2)}"]
    for row in rows:
        link = f"[{row.paper.cite}](https://arxiv.org/abs/{row.paper.arxiv})"
        lines.append(f"| {' | '.join((f'`{row.name}`', link, *_cells(row)))} |")
    return "\n".join(lines)


def _terminal(title: str, what: str, rows: list[Row]) -> str:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    first, second, *numbers = _header(what, rows)
    table.add_column(first, no_wrap=True)
    table.add_column(second)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row.name, f"{row.paper.cite}, arXiv {row.paper.arxiv}", *_cells(row))
    console = Console(width=None if sys.stdout.isatty() else 120)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())
