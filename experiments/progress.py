"""What a sweep shows while it runs: points done, the loss of each running one, and the time left."""

import time
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from .executor import Event


@dataclass
class Board:
    """A live display on a terminal; elsewhere, one line for each finished point."""

    console: Console = field(default_factory=lambda: Console(stderr=True))
    done: int = 0
    total: int = 0
    _steps: dict[str, int] = field(default_factory=dict)
    _rows: dict[str, TaskID] = field(default_factory=dict)
    _began: float = 0.0
    _ran: int = 0

    def __post_init__(self):
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28, complete_style="cyan", finished_style="cyan"),
            MofNCompleteColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._all = self._bars.add_task("[bold]points", total=0, note="")

    def __enter__(self) -> "Board":
        self._began = time.monotonic()
        self._bars.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()

    def add(self, name: str, steps: int, *, finished: bool = False) -> None:
        """One more point; a finished one counts as done at once."""
        self._steps[name] = steps
        self.done += finished
        self.expect(max(self.total, len(self._steps)))

    def expect(self, total: int) -> None:
        """How many points there will be in all, as far as is known."""
        self.total = total
        self._bars.update(self._all, total=total, completed=self.done, note=self._left().removeprefix(", "))

    def show(self, event: Event) -> None:
        """Takes one event of an executor."""
        if event.kind == "started":
            self._rows[event.name] = self._bars.add_task(
                event.name, total=self._steps.get(event.name), note="compiling"
            )
        elif event.kind == "progress":
            self._bars.update(self._rows[event.name], completed=event.step, note=f"loss {event.loss:.4f}")
        else:
            if event.name in self._rows:
                self._bars.remove_task(self._rows.pop(event.name))
            self.done += 1
            self._ran += 1
            if event.kind == "failed":
                self.console.print(f"[red]{event.name} failed:[/] {event.message}", highlight=False)
            elif not self.console.is_terminal:
                self.console.print(
                    f"{self.done}/{self.total} {event.name}{self._left()}", highlight=False, soft_wrap=True
                )
            self.expect(self.total)

    def _left(self) -> str:
        remaining = self.total - self.done
        if not self._ran or remaining <= 0:
            return ""
        seconds = (time.monotonic() - self._began) / self._ran * remaining
        return f", about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """A time as people say it: 42 s, 3 min 5 s, 2 h 10 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
