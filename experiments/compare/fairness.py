"""The rules of a fair comparison, each checked against what really ran."""

from collections.abc import Sequence

from ..config import RunConfig
from .contestants import TOLERANCE, Contestant
from .plan import SELECTION_SEED
from .settings import Task
from .study import Check, Entry

STATE_TOLERANCE = 0.05
QUERIES = 16_000
TEXT_BYTES = 100_000


def checks(
    task: Task, entries: Sequence[Entry], contestants: Sequence[Contestant], runs: Sequence[Sequence[RunConfig]],
    metric: str, evaluated: int, sha256: str,
) -> tuple[Check, ...]:  # fmt: skip
    """Every rule, with the figures that show whether it holds.

    Args:
      task: the task.
      entries: what came out, one an architecture.
      contestants: what was built, in the same order.
      runs: the finished runs of each, in the same order.
      metric: the task's metric.
      evaluated: the weight of the test split: queries, or bytes.
      sha256: the data of every finished run; ``collect`` refuses runs on different data.
    """
    return (
        equal_budget(runs),
        parameters(task, contestants),
        state(task, entries),
        grid(task, entries),
        Check(
            "learning rate chosen on validation loss, by selection seeds; figures from fresh seeds on the test split",
            all(seed < SELECTION_SEED for entry in entries for seed in entry.fresh),
            f"{task.selection_seeds} selection and {task.seeds} fresh seeds, which never meet; no best-of",
        ),
        edges(entries),
        diverged(entries),
        trunk(contestants),
        Check(
            "weight decay decoupled from the learning rate, on weight matrices only",
            len({run.optim.weight_decay for group in runs for run in group}) <= 1,
            f"{task.optim.weight_decay:g} of a matrix per step at the schedule's peak, for all",
        ),
        evaluation(metric, evaluated),
        Check("one set of data", True, f"sha256 {sha256[:16]}…, the same in every run"),
        finished(task, entries),
        costs(entries),
    )


def equal_budget(runs: Sequence[Sequence[RunConfig]]) -> Check:
    """Equal dim, depth, vocabulary, tokens and data order."""
    every = [run for group in runs for run in group]
    kinds = {(r.model.dim, r.model.depth, r.model.vocab, r.steps, r.batch, r.data, r.dtype) for r in every}
    orders = [{(run.seed, run.order) for run in group if run.seed < SELECTION_SEED} for group in runs]
    same = len(kinds) <= 1 and all(order == orders[0] for order in orders)
    run = every[0] if every else None
    figures = (
        f"dim {run.model.dim}, depth {run.model.depth}, vocabulary {run.model.vocab}, "
        f"{run.steps} steps of {run.batch} sequences each; a seed means the same batches to all"
        if run
        else "nothing has run"
    )
    return Check("equal dim, depth, vocabulary, tokens and data order", same and run is not None, figures)


def parameters(task: Task, contestants: Sequence[Contestant]) -> Check:
    """Non-embedding parameters within 2%, where channel mixers can make up for the mixers' differences."""
    counts = {c.arch: c.parameters for c in contestants}
    reference = counts[contestants[0].arch]
    off = {name: count / reference - 1 for name, count in counts.items()}
    figures = ", ".join(f"{name} {counts[name]:,} ({off[name]:+.1%})" for name in counts)
    rule = f"non-embedding parameters within {TOLERANCE:.0%}"
    if task.mlp is not None:
        return Check(f"{rule}, by channel-mixer width", max(map(abs, off.values())) <= TOLERANCE, figures)
    holds = max(map(abs, off.values())) <= TOLERANCE
    return Check(rule, holds, f"no channel mixers to match them by, so state is matched instead: {figures}")


def state(task: Task, entries: Sequence[Entry]) -> Check:
    """State bytes at evaluation length: matched where there are no channel mixers, shown in any case."""
    reference = entries[0].state_bytes
    figures = ", ".join(f"{e.arch} {e.state_bytes:,} B" for e in entries)
    if task.mlp is not None:
        return Check("state bytes shown", True, figures)
    unmatched = [e.arch for e in entries if abs(e.state_bytes / reference - 1) > STATE_TOLERANCE]
    why = f"; not matched, having no width of keys and values to set: {', '.join(unmatched)}" if unmatched else ""
    return Check(f"state bytes within {STATE_TOLERANCE:.0%}", not unmatched, figures + why)


def grid(task: Task, entries: Sequence[Entry]) -> Check:
    """One learning-rate grid and budget for all, but for growth at the edges."""
    same = all(set(task.lrs) <= set(entry.scores) for entry in entries)
    extra = {e.arch: sorted(set(e.scores) - set(task.lrs)) for e in entries}
    grown = ", ".join(f"{name} also {' '.join(f'{lr:g}' for lr in lrs)}" for name, lrs in extra.items() if lrs)
    return Check(
        "one learning-rate grid and budget for all",
        same,
        f"{' '.join(f'{lr:g}' for lr in task.lrs)}" + (f"; grown at an edge: {grown}" if grown else ""),
    )


def edges(entries: Sequence[Entry]) -> Check:
    """The best learning rate lies inside the grid."""
    marked = [entry.arch for entry in entries if entry.at_edge]
    detail = f"still at an edge after growing twice: {', '.join(marked)}" if marked else "for every architecture"
    return Check("the best learning rate lies inside its grid", not marked, detail)


def diverged(entries: Sequence[Entry]) -> Check:
    """Diverged runs count as failures, and are said."""
    lost = {entry.arch: len(entry.diverged) for entry in entries if entry.diverged}
    detail = ", ".join(f"{name}: {count} counted as failures" for name, count in lost.items())
    return Check("no fresh run diverged", not lost, detail or "0 of all")


def trunk(contestants: Sequence[Contestant]) -> Check:
    """The trunk around the mixers is the same."""
    models = [contestant.model for contestant in contestants]
    fields = ("norm", "residual", "tied", "embed_std", "scale_embedding", "soft_cap")
    kinds = {name: sorted({str(getattr(model, name)) for model in models}) for name in fields}
    mlps = {type(model.mlp).__name__ for model in models}
    figures = ", ".join(f"{name} {' / '.join(values)}" for name, values in kinds.items())
    same = all(len(values) == 1 for values in kinds.values()) and len(mlps) == 1
    return Check("trunk and its initialisation identical", same, f"{figures}; each mixer's own per its paper")


def evaluation(metric: str, evaluated: int) -> Check:
    """The fixed evaluation set is large enough."""
    least, unit = (TEXT_BYTES, "bytes") if metric == "bits_per_byte" else (QUERIES, "queries")
    return Check("one fixed test set, large enough", evaluated >= least, f"{evaluated:,} {unit}; at least {least:,}")


def finished(task: Task, entries: Sequence[Entry]) -> Check:
    """Every fresh seed has a figure."""
    short = [f"{e.arch} {len(e.fresh)}" for e in entries if len(e.fresh) < task.seeds]
    detail = f"short of {task.seeds}: {', '.join(short)}" if short else f"{task.seeds} each"
    return Check("every fresh seed of every architecture has run", not short, detail)


def costs(entries: Sequence[Entry]) -> Check:
    """Costs were measured."""
    missing = [entry.arch for entry in entries if entry.cost is None]
    detail = f"not measured: {', '.join(missing)}" if missing else "in one process, taking turns, nothing else running"
    return Check("costs measured alone after training", not missing, detail)
