"""Ctrl-C and SIGTERM as a question that a loop asks when it can stop, not an exception in the middle of a step."""

import signal
import threading
from types import FrameType
from typing import Any


class Interrupts:
    """Within this context the first SIGINT or SIGTERM is noted; a second one acts as it would have outside.

    Outside the main thread, where Python lets nobody set a handler, nothing is noted.

    Attributes:
        signal: the signal that came, or None.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            # A worker of a sweep ignores Ctrl-C, which its parent handles: that stays so.
            wanted = [number for number in self.SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in wanted}
        return self

    def __exit__(self, *_) -> None:
        self._restore()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)
