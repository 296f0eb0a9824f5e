"""Rows measured in a process of their own: a kernel may hang, or leave its process with a GPU that only fails."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from .plan import Key, Plan, attempts
from .record import Row

PATIENCE, START = 300.0, 120.0
"""Seconds for one row, most of them to compile, and more for the first of a process, which has to begin."""


def isolated(
    plan: Plan, keys: Sequence[Key], patience: float = PATIENCE, start: float = START, work: Callable | None = None
) -> Iterator[Row]:
    """The rows of ``keys``, in their order, by one process after another.

    A process that dies, or says nothing for too long, costs the row that it was at; the next goes on behind it.

    Args:
      plan: where the keys are from.
      keys: those wanted.
      patience: seconds for a row.
      start: seconds more for the first row of a process.
      work: what the process runs, for tests: ``(connection, plan, done)``.
    """
    everything, context = list(plan.rows()), multiprocessing.get_context("spawn")
    left = [key for key in everything if key in set(keys)]
    while left:
        here, there = context.Pipe(duplex=False)
        done = [key for key in everything if key not in set(left)]
        process = context.Process(target=work or _work, args=(there, plan, done), daemon=True)
        process.start()
        there.close()
        try:
            healthy, more = True, start
            while left and healthy:
                row, healthy = _next(here, process, left[0], patience, more)
                more = 0.0
                left.pop(0)
                yield row
        finally:
            process.kill()
            process.join()


def _next(here: Connection, process: BaseProcess, key: Key, patience: float, more: float) -> tuple[Row, bool]:
    """What the process says next, or why it says nothing; and whether it can be asked again."""
    if not here.poll(patience + more):
        return Row(*key, reason=f"no answer in {patience:.0f} s"), False
    try:
        return here.recv()
    except EOFError:
        process.join()
        return Row(*key, reason=f"its process ended with {process.exitcode}"), False


def _work(there: Connection, plan: Plan, done: Sequence[Key]) -> None:
    """The process: ends after a row that may have spoilt its GPU."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    for row, healthy in attempts(plan, done):
        there.send((row, healthy))
        if not healthy:
            return
