"""The figures of the page: SVG whose colours are the page's own variables, so that they follow light and dark."""

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from ..compare.study import METRICS, Curve, Entry, Study, Table
from . import words

INK, MUTED, GRID = "#010101", "#020202", "#030303"
"""Stand-ins that ``svg`` replaces by CSS variables, as are the colours of ``colour``."""
STYLE = {
    "svg.fonttype": "none", "font.size": 10.5, "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": GRID,
    "xtick.color": GRID, "ytick.color": GRID, "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "ytick.major.size": 0,
    "grid.color": GRID, "axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True, "axes.labelsize": 10.5,
    "xtick.labelsize": 9.5, "ytick.labelsize": 9.5, "grid.linewidth": 0.8, "axes.linewidth": 0.8,
}  # fmt: skip


def colour(study: Study, arch: str) -> str:
    """The stand-in for an architecture's colour: one colour in every figure of the page."""
    return f"#0000{0x10 + study.archs.index(arch) % 10:02x}"


@contextmanager
def axes(width: float, height: float, salt: str, done: list[str]) -> Iterator[Axes]:
    """A figure with the page's style; its SVG is appended to ``done``."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}):  # pyright: ignore[reportArgumentType]
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        yield figure.add_subplot()
        done.append(svg(figure))


def svg(figure: Figure) -> str:
    """The figure as an inline SVG element that scales with the page and takes its colours and font."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", bbox_inches="tight", pad_inches=0.04, transparent=True, metadata={"Date": None}
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r"(font: [^'\"]*?px) '[^\"]*?(;|\")", r"\1 var(--font)\2", text)
    for stand_in, variable in ((INK, "--ink"), (MUTED, "--muted"), (GRID, "--grid")):
        text = text.replace(stand_in, f"var({variable})")
    return re.sub(r"#0000(1[0-9])", lambda m: f"var(--arch-{int(m[1]) - 10})", text)


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Moves label positions apart until neighbours are ``gap`` apart, keeping their order and about their places."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    groups: list[list[float]] = []  # [centre, count]
    for i in order:
        groups.append([positions[i], 1])
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-1][1] + groups[-2][1]) / 2:
            (c1, n1), (c0, n0) = groups.pop(), groups.pop()
            groups.append([(c0 * n0 + c1 * n1) / (n0 + n1), n0 + n1])
    placed = [centre + gap * (j - (n - 1) / 2) for centre, n in groups for j in range(int(n))]
    moved = [0.0] * len(positions)
    for i, place in zip(order, placed, strict=True):
        moved[i] = place
    return moved


def label_ends(ax: Axes, ends: dict[str, tuple[float, float]], tint: Callable[[str], str]) -> None:
    """Names each line at its right end instead of in a legend."""
    if not ends:
        return
    low, high = ax.get_ylim()
    to = (lambda y: math.log(y)) if ax.get_yscale() == "log" else (lambda y: y)
    height = ax.figure.bbox.height / ax.figure.dpi  # pyright: ignore[reportAttributeAccessIssue]
    places = [(to(y) - to(low)) / (to(high) - to(low)) for _, y in ends.values()]
    right = max(x for x, _ in ends.values())
    for (name, (_, y)), place in zip(ends.items(), spread(places, 0.17 / (0.77 * height)), strict=True):
        ax.annotate(
            name, xy=(right, y), xycoords="data", xytext=(1.02, place), textcoords="axes fraction", color=tint(name),
            va="center", fontsize=9.5, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": tint(name), "lw": 0.6, "alpha": 0.5, "shrinkA": 0, "shrinkB": 2},
        )  # fmt: skip


def figures(study: Study, table: Table) -> str:
    """Every fresh seed's test figure, the mean and its interval, beside the baselines."""
    out: list[str] = []
    entries = list(reversed(table.complete))
    with axes(7.6, 0.55 + 0.34 * max(2, len(entries)), f"figures {table.task} {table.dim}", out) as ax:
        ax.grid(False)
        for i, (name, value) in enumerate(table.baselines.items()):
            ax.axvline(value, color=MUTED, lw=0.8, ls=(0, (2, 2)))
            x = (value, 1.0 if i % 2 == 0 else 1.09)
            ax.annotate(name, x, xycoords=("data", "axes fraction"), color=MUTED, fontsize=9, ha="center", va="bottom")
        for y, entry in enumerate(entries):
            tint, mean = colour(study, entry.arch), entry.interval
            if not math.isnan(mean.low):
                ax.plot([mean.low, mean.high], [y, y], color=tint, lw=6, alpha=0.22, solid_capstyle="round")
            ax.plot(list(entry.fresh.values()), [y] * len(entry.fresh), "o", ms=5, color=tint, alpha=0.75, mew=0)
            ax.plot([mean.mean], [y], "|", ms=15, mew=2, color=tint)
        ax.set_yticks(range(len(entries)), [entry.arch for entry in entries], fontsize=10.5)
        for tick, entry in zip(ax.get_yticklabels(), entries, strict=True):
            tick.set_color(colour(study, entry.arch))
        ax.set_ylim(-0.6, len(entries) - 0.4)
        if table.metric != "bits_per_byte":
            ax.set_xlim(-0.02, 1.03)
        ax.set_xlabel(words.metric(table))
    return out[0]


def smooth(curve: Curve, points: int = 60) -> tuple[list[float], list[float]]:
    """The curve as means over about ``points`` bins."""
    width = max(1, len(curve.steps) // points)
    starts = range(0, len(curve.steps) - width + 1, width)
    mean = lambda values: math.fsum(values) / len(values)  # noqa: E731
    return [mean(curve.steps[i : i + width]) for i in starts], [mean(curve.loss[i : i + width]) for i in starts]


def loss_curves(study: Study, table: Table) -> str | None:
    """Training loss of every fresh seed (thin) and their mean (thick)."""
    out: list[str] = []
    with axes(5.6, 3.4, f"loss {table.task} {table.dim}", out) as ax:
        ends = {}
        for entry in table.complete:
            tint = colour(study, entry.arch)
            lines = [smooth(curve) for curve in entry.curves.values() if curve.steps]
            for x, y in lines:
                ax.plot(x, y, color=tint, lw=0.8, alpha=0.4)
            whole = [line for line in lines if len(line[0]) == max(len(other[0]) for other in lines)]
            if whole:
                mean = [math.fsum(ys) / len(ys) for ys in zip(*(y for _, y in whole), strict=True)]
                ax.plot(whole[0][0], mean, color=tint, lw=2)
                ends[entry.arch] = (whole[0][0][-1], mean[-1])
        if not ends:
            return None
        ax.margins(x=0)
        ax.set_xlabel("step")
        ax.set_ylabel("training loss")
        label_ends(ax, ends, lambda name: colour(study, name))
    return out[0]


def lr_curves(study: Study, table: Table) -> str | None:
    """Validation loss against the learning rate in selection; the chosen one is ringed."""
    out: list[str] = []
    with axes(5.6, 3.4, f"lr {table.task} {table.dim}", out) as ax:
        ends, tried = {}, set()
        for entry in table.entries:
            means = {lr: math.fsum(losses) / len(losses) for lr, losses in sorted(entry.scores.items())}
            means = {lr: loss for lr, loss in means.items() if math.isfinite(loss)}
            if not means:
                continue
            tint = colour(study, entry.arch)
            ax.plot(list(means), list(means.values()), color=tint, lw=1.6, marker="o", ms=3.5, mew=0)
            for lr, losses in entry.scores.items():
                if len(losses) > 1:
                    ax.plot([lr] * len(losses), losses, "o", color=tint, ms=2.5, alpha=0.5, mew=0)
            if entry.lr in means:
                ax.plot([entry.lr], [means[entry.lr]], "o", ms=9, mfc="none", mec=tint, mew=1.6)
            ends[entry.arch] = list(means.items())[-1]
            tried |= set(means)
        if not ends:
            return None
        ax.set_xscale("log")
        ax.set_xticks(sorted(tried), [f"{lr:g}" for lr in sorted(tried)])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("learning rate")
        ax.set_ylabel("validation loss, selection seeds")
        label_ends(ax, ends, lambda name: colour(study, name))
    return out[0]


def scatter(study: Study, table: Table, xs: dict[str, list[tuple[float, Entry]]], label: str, unit: Callable) -> str:
    """Test figures against a cost on a log axis, a line through the widths of one architecture."""
    out: list[str] = []
    with axes(5.6, 3.4, f"{label} {table.task} {table.dim}", out) as ax:
        ends, every = {}, []
        for arch, points in xs.items():
            tint = colour(study, arch)
            for x, entry in points:
                ax.plot([x] * len(entry.fresh), list(entry.fresh.values()), "o", ms=3.5, alpha=0.45, color=tint, mew=0)
            means = [(x, entry.interval.mean) for x, entry in sorted(points, key=lambda p: p[0])]
            ax.plot([x for x, _ in means], [y for _, y in means], "-o", color=tint, ms=7, lw=1.6, mew=0)
            ends[arch] = means[-1]
            every += [x for x, _ in means]
        ax.set_xscale("log")
        margin = (max(every) / min(every)) ** 0.06 + 0.02
        ax.set_xlim(min(every) / margin, max(every) * margin)
        decades = math.log10(max(every) / min(every))
        ax.xaxis.set_major_locator(LogLocator(subs=(1,) if decades > 2 else (1, 2, 5), numticks=12))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: unit(x)))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel(label)
        ax.set_ylabel(f"test {METRICS[table.metric][0]}")
        label_ends(ax, ends, lambda name: colour(study, name))
    return out[0]


def against_state(study: Study, tables: Sequence[Table]) -> str | None:
    """Test figures against state bytes over the widths of one task; None below three widths."""
    if len({table.dim for table in tables}) < 3:
        return None
    xs: dict[str, list[tuple[float, Entry]]] = {}
    for table in tables:
        for entry in table.complete:
            xs.setdefault(entry.arch, []).append((float(entry.state_bytes), entry))
    return scatter(study, tables[0], xs, "state per sequence (log scale)", words.size) if xs else None


def against_speed(study: Study, table: Table) -> str | None:
    """Test figures against training tokens per second, measured alone; None before costs are measured."""
    xs = {e.arch: [(e.cost.train_tokens_per_s, e)] for e in table.complete if e.cost is not None}
    return scatter(study, table, xs, "training tokens per second (log scale)", words.rate) if xs else None
