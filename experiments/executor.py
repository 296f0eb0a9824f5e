"""Where points run. An executor takes points and yields what happens to them; local processes are the one there is.

A point's group is what it shares a compiled executable with: a worker keeps to its group while it lasts, so that an
architecture is compiled once, by one worker, in a process that lives as long as the sweep.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, runtime_checkable

Report = Callable[[int, float], None]
"""Takes (step, loss) while a point runs."""
Work = Callable[[Any, Report], None]
"""Runs a point's payload. A module-level function: it travels to other processes by name."""


@dataclass(frozen=True)
class Job:
    """One point to run: a name, the group it compiles with, and what the work function takes."""

    name: str
    group: str
    payload: Any


@dataclass(frozen=True)
class Event:
    """What happened to a job: ``"started"``, ``"progress"``, ``"finished"`` or ``"failed"``."""

    kind: str
    name: str
    step: int = 0
    loss: float = float("nan")
    message: str = ""


@runtime_checkable
class Executor(Protocol):
    """Runs jobs somewhere. An executor across machines (Ray) is another class with these three methods."""

    def submit(self, job: Job) -> None:
        """Adds a job; may be called while events are read."""
        ...

    def events(self) -> Iterator[Event]:
        """Yields what happens, until every submitted job has finished or failed."""
        ...

    def close(self) -> None:
        """Stops the workers; jobs still running are cut off."""
        ...


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    group: str = ""
    job: Job | None = None


@dataclass
class LocalExecutor:
    """Long-lived worker processes on this machine, each held to one core.

    On an accelerator there is one worker, which is not held: the device is the resource that points share.
    """

    work: Work
    workers: int
    pin: bool = True
    _pending: dict[str, deque[Job]] = field(default_factory=lambda: defaultdict(deque))
    _pool: list[_Worker] = field(default_factory=list)

    def submit(self, job: Job) -> None:
        """Adds a job behind the others of its group."""
        self._pending[job.group].append(job)

    def events(self) -> Iterator[Event]:
        """Hands jobs to idle workers and yields what they report; a worker that dies fails its job alone."""
        while self._hand_out():
            ready = wait([worker.connection for worker in self._pool if worker.job])
            for worker in [worker for worker in self._pool if worker.connection in ready]:
                yield from self._receive(worker)

    def close(self) -> None:
        """Asks the workers to stop (SIGTERM: a trainer saves), then ends those that do not."""
        for worker in self._pool:
            worker.connection.close()
            worker.process.terminate()
        for worker in self._pool:
            worker.process.join(10)
            if worker.process.is_alive():
                worker.process.kill()
        self._pool.clear()

    def _hand_out(self) -> bool:
        for worker in self._pool:
            if worker.job is None:
                self._give(worker)
        while len(self._pool) < self.workers and (job := self._next("")):
            worker = self._start(len(self._pool))
            self._pool.append(worker)
            self._give(worker, job)
        return any(worker.job for worker in self._pool)

    def _give(self, worker: _Worker, job: Job | None = None) -> None:
        worker.job = job or self._next(worker.group)
        if worker.job:
            worker.group = worker.job.group
            worker.connection.send(worker.job.payload)

    def _next(self, group: str) -> Job | None:
        """The worker's own group; else the oldest group that nobody works on; else what waits behind a busy one."""
        taken = {worker.group for worker in self._pool if worker.job}
        waiting = [name for name, jobs in self._pending.items() if jobs]
        free = [name for name in waiting if name not in taken]
        chosen = group if group in waiting else free[0] if free else None
        if chosen is None and waiting:
            chosen = max(waiting, key=lambda name: len(self._pending[name]))
        return self._pending[chosen].popleft() if chosen is not None else None

    def _start(self, index: int) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        available = cores()
        core = available[index % len(available)] if self.pin else None
        process = context.Process(target=_serve, args=(theirs, core, self.work), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _receive(self, worker: _Worker) -> Iterator[Event]:
        job = worker.job
        assert job is not None
        try:
            kind, step, loss, message = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            self._pool.remove(worker)
            yield Event("failed", job.name, message=f"its worker process died (exit status {worker.process.exitcode})")
            return
        if kind in ("finished", "failed"):
            worker.job = None
        yield Event(kind, job.name, step, loss, message)


def _serve(connection: Connection, core: int | None, work: Work) -> None:
    """A worker: takes payloads until the parent is gone."""
    hold_to_core(core)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent stops us by SIGTERM
    threading.Thread(target=_die_with_parent, daemon=True).start()

    def report(step: int, loss: float) -> None:
        connection.send(("progress", step, loss, ""))

    while True:
        try:
            payload = connection.recv()
        except EOFError:
            return
        connection.send(("started", 0, 0.0, ""))
        try:
            work(payload, report)
        except Exception as error:
            traceback.print_exc()
            connection.send(("failed", 0, 0.0, f"{type(error).__name__}: {error}"))
        else:
            connection.send(("finished", 0, 0.0, ""))


def hold_to_core(core: int | None) -> None:
    """Makes this process compute on one core, before its first jax array: XLA sizes its pools by the cores it may use.

    Where affinity cannot be set (macOS) a flag of XLA keeps at least matrix products to one thread.
    """
    if core is None:
        return
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def _die_with_parent() -> None:
    """Ends a worker whose parent was killed, lest it write beside the next command's workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
