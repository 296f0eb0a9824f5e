"""What one decoded token costs after contexts of several lengths. A linear-time architecture pays the same for each."""

import os
import platform
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import PyTree
from rich import box
from rich.live import Live
from rich.table import Table

from ...archs import LM
from ...archs.config import LMConfig
from ...archs.table import ARCHS
from ..compare.contestants import base
from ..errors import UserError
from ..rundir import versions, write_json
from ..timing import timed

CONTEXTS = (1024, 65_536)
TOKENS = 128
"""Tokens decoded in one timed call."""
ROUNDS = 7
"""Turns that each context takes; the median counts."""
PIECE = 512
"""Tokens of context that are read at once, at most."""


class Cost(NamedTuple):
    """Microseconds a token by context, in the order of the contexts asked for."""

    arch: str
    microseconds: tuple[float, ...]


def show(archs: Sequence[str] = (), contexts: Sequence[int] = (), record: Path | None = None) -> None:
    """Measures and prints a table, an architecture as soon as it is measured.

    Args:
      archs: names as ``subquad compare`` takes them; none: every architecture whose state stops growing.
      contexts: tokens read before decoding; none: 1,024 and 65,536.
      record: a JSON file that gets the figures too.

    Raises:
      UserError: an unknown architecture, a context that is none, or no folder for the record.
    """
    contexts = tuple(contexts) or CONTEXTS
    if min(contexts) < 1:
        raise UserError(f"a context has at least one token, not {min(contexts)}")
    if record is not None and not record.absolute().parent.is_dir():
        raise UserError(f"there is no folder {record.parent} for the record")
    models = {arch: base(arch) for arch in archs} if archs else linear_time(max(contexts))
    device, costs = jax.devices()[0].device_kind, []
    grid = Table(title=f"one sequence on {device}", box=box.SIMPLE_HEAD, title_justify="left")
    grid.add_column("architecture")
    for context in contexts:
        grid.add_column(f"µs/token after {context:,}", justify="right")
    grid.add_column("last over first", justify="right")
    with Live(grid):
        for arch, model in models.items():
            costs.append(measure(arch, model, contexts))
            first, last = costs[-1].microseconds[0], costs[-1].microseconds[-1]
            grid.add_row(arch, *(f"{us:,.0f}" for us in costs[-1].microseconds), f"{last / first:.2f}")
    if record is not None:
        rows = {cost.arch: [round(us, 1) for us in cost.microseconds] for cost in costs}
        host = {"device": device, "machine": platform.machine(), "cores": os.cpu_count(), "versions": versions()}
        write_json(record, {**host, "contexts": contexts, "microseconds": rows})


def linear_time(T: int) -> dict[str, LMConfig]:
    """The tiny size of every architecture that keeps no more after 2 T tokens than after T."""
    tiny = {name: arch("tiny") for name, arch in ARCHS.items()}
    return {name: model for name, model in tiny.items() if model.state_bytes(2 * T) == model.state_bytes(T)}


def measure(arch: str, model: LMConfig, contexts: Sequence[int], tokens: int = TOKENS, rounds: int = ROUNDS) -> Cost:
    """What a token of greedy decoding at batch 1 costs after each context: all contexts take turns in one process.

    Args:
      arch: its name.
      model: what to build, with random parameters.
      contexts: tokens read before.
      tokens: decoded in one timed call.
      rounds: calls timed after each context; the median counts.
    """
    graph, state = nnx.split(jax.jit(lambda: LM(model, rngs=nnx.Rngs(0)))())
    caches = {context: _read(graph, state, context, context + tokens) for context in contexts}
    calls = {context: partial(_decode, graph, state, cache, tokens) for context, cache in caches.items()}
    for call in calls.values():
        timed(call)
    seconds: dict[int, list[float]] = {context: [] for context in contexts}
    for _ in range(rounds):
        for context, call in calls.items():
            seconds[context].append(timed(call))
    return Cost(arch, tuple(1e6 * statistics.median(seconds[context]) / tokens for context in contexts))


@partial(jax.jit, static_argnums=(0, 2, 3))
def _read(graph: Any, state: PyTree, context: int, max_len: int) -> PyTree:
    """The cache after ``context`` random tokens, read in pieces so that no array grows with the context."""
    lm: LM = nnx.merge(graph, state)
    prompt = jax.random.randint(jax.random.key(1), (context,), 0, lm.config.vocab)
    whole, cache = context // PIECE * PIECE, lm.init_cache(1, max_len)
    read = lambda cache, piece: (lm.prefill_hidden(piece, cache)[1], None)  # noqa: E731
    cache, _ = jax.lax.scan(read, cache, prompt[:whole].reshape(-1, 1, PIECE))
    return read(cache, prompt[None, whole:])[0] if whole < context else cache


@partial(jax.jit, static_argnums=(0, 3))
def _decode(graph: Any, state: PyTree, cache: PyTree, tokens: int) -> Any:
    lm: LM = nnx.merge(graph, state)

    def step(carry, _):
        token, cache = carry
        logits, cache = lm.step(token, cache)
        return (logits.argmax(-1).astype(jnp.int32), cache), token

    return jax.lax.scan(step, (jnp.zeros(1, jnp.int32), cache), length=tokens)[1]
