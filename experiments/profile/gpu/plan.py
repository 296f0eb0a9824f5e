"""Which rows ``subquad profile gpu`` has, and how each comes about."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from ..workloads import Size
from . import peers, step
from .measure import FULL, QUICK, Card, Contestant, Task, of_jax
from .ops import OPS, SIZES, TINY
from .record import Row, label

Key = tuple[str, str, str, str]
"""Op, size, pass, and by whom: the first fields of a row."""
PASSES = {"forward": False, "forward+backward": True}


class Plan(NamedTuple):
    """What is asked for; another process makes the same rows of it."""

    names: Sequence[str]
    """Of ``OPS`` and ``step.MODELS``."""
    tiny: bool
    limits: Card

    def rows(self) -> dict[Key, Callable[[], Row]]:
        """Each row by its key, measured when it is called."""
        effort, sizes = (QUICK, TINY) if self.tiny else (FULL, SIZES)
        task = lru_cache(maxsize=1)(lambda name, size: Task(name, OPS[name], size, effort, self.limits))
        found: dict[Key, Callable[[], Row]] = {}
        for name in self.names:
            if name in step.MODELS:
                found |= step.rows(name, self.tiny, self.limits)
                continue
            by = contestants(name)
            for size in sizes:
                for passed in PASSES:
                    for who, contestant in by.items():
                        found[name, label(size), passed, who] = partial(_row, task, name, size, who, contestant, passed)
        return found


def _row(task: Callable, name: str, size: Size, who: str, contestant: Contestant, passed: str) -> Row:
    return task(name, size).row(who, contestant, PASSES[passed])


def contestants(name: str) -> dict[str, Contestant]:
    """Our implementations, as dispatch has them, and the peers."""
    op = OPS[name]
    ours = {impl: of_jax(lambda x, impl=impl: op.run(impl, x)) for impl in op.impls()}
    return ours | peers.contestants(name)


def attempts(plan: Plan, done: Sequence[Key] = ()) -> Iterator[tuple[Row, bool]]:
    """The rows that are not done, and of each whether the device can be trusted with the next.

    After an error at run time, such as an illegal address, a process gets nothing but errors from its GPU; what does
    not take a shape or a machine says so before it runs, by a ``ValueError`` or its like.
    """
    for key, measure in plan.rows().items():
        if key in done:
            continue
        try:
            yield measure(), True
        except Exception as error:
            yield Row(*key, reason=reason(error)), not isinstance(error, RuntimeError)


def reason(error: Exception) -> str:
    """Why something did not run, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
