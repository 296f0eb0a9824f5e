"""What one training run shows while it goes: a bar with loss, tokens/s and the time left, and lines above it."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Display:
    """A progress bar on standard error; elsewhere than on a terminal, and without ``progress``, only the lines.

    Args:
        steps: the run's steps.
        progress: whether to show the bar.
    """

    def __init__(self, steps: int, *, progress: bool):
        self.console = Console(stderr=True)
        self._bar = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=32, complete_style="cyan", finished_style="cyan"),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not (progress and self.console.is_terminal),
        )
        self._task = self._bar.add_task("", total=steps, note="compiling")

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def resume(self, step: int) -> None:
        """Moves the bar to where the run continues."""
        self._bar.reset(self._task, completed=step)

    def show(self, step: int, loss: float, tokens_per_s: float, utilisation: float | None) -> None:
        """Moves the bar to ``step``."""
        used = "" if utilisation is None else f"  [dim]MFU[/] {utilisation:.1%}"
        note = f"[dim]loss[/] {loss:.4f}  [dim]tokens/s[/] {tokens_per_s:,.0f}{used}"
        self._bar.update(self._task, completed=step, note=note)

    def say(self, line: str) -> None:
        """Prints one line."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)
