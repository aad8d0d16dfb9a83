"""Worker processes on this machine.

Each worker is a process with a pipe, rather than a member of ``concurrent.futures``' pool. There, one worker
that is killed takes all others with it, workers cannot be stopped at work, and they outlive a killed parent.

Workers are forked from a server that has imported PyTorch and done nothing else, so that only the first one
waits for that, and what replaces a worker is there at once.
"""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from hessalign.benchmark.job import Job, Outcome, outcome_of_death, perform_as_worker

RUNS_PER_WORKER = 100
"""After so many a worker is replaced, which bounds what its memory may lose."""

SECONDS_FOR_SERVER = 5
"""How long a server that was killed may take to die."""

_server = get_context("forkserver")


class LocalEngine:
    """One run, or one group of runs that are trained together, at a time in each of some worker processes.

    A worker that dies is replaced, and its run, which resumes from its checkpoint, counts as failed once.
    Runs that failed together are done again one by one.

    Args:
        workers: Number of processes.
        threads: Of PyTorch in each.
        retries: How often a failed run is done again.
        devices: Values of ``CUDA_VISIBLE_DEVICES``, dealt to the workers in turn; empty to leave it.

    Examples:
        >>> from contextlib import closing
        >>> from hessalign.benchmark.engines import LocalEngine
        >>> with closing(LocalEngine(workers=2, threads=1)) as engine:
        ...     list(engine.perform([])), engine.retries
        ([], 1)
    """

    def __init__(self, workers: int, threads: int, retries: int = 1, devices: Sequence[str] = ()) -> None:
        self.retries = retries
        self._size = workers
        self._threads = threads
        self._devices = devices
        self._workers: list[_Worker] = []

    def perform(self, groups: Sequence[Sequence[Job]]) -> Iterator[Outcome]:
        """The outcome of each job of each group, as they come in."""
        waiting = deque(_Attempt(group, 1) for group in groups)
        while waiting or self.running():
            self._hand_out(waiting)
            busy = {worker.connection: worker for worker in self._workers if worker.attempt}
            for connection in wait(list(busy)):
                number, outcomes = busy[connection].take()  # type: ignore[index]
                for outcome in outcomes:
                    if outcome.status == "failed" and number <= self.retries:
                        waiting.append(_Attempt([outcome.job], number + 1))
                    else:
                        yield outcome

    def running(self) -> list[Sequence[Job]]:
        """The groups that are being done now."""
        attempts = [worker.attempt for worker in self._workers]  # another thread may ask
        return [attempt.jobs for attempt in attempts if attempt]

    def close(self) -> None:
        """Kill the workers."""
        for worker in self._workers:
            worker.kill()
        self._workers = []

    def _hand_out(self, waiting: "deque[_Attempt]") -> None:
        for slot in range(self._size):
            if not waiting:
                return
            if slot == len(self._workers):
                self._workers.append(self._start(slot))
            elif not self._workers[slot].usable:
                self._workers[slot].kill()
                self._workers[slot] = self._start(slot)
            if not self._workers[slot].attempt:
                self._workers[slot].give(waiting.popleft())

    def _start(self, slot: int) -> "_Worker":
        device = self._devices[slot % len(self._devices)] if self._devices else None
        return _Worker(self._threads, device)


class _Attempt(NamedTuple):
    jobs: Sequence[Job]
    number: int


class _Worker:
    """The parent's view of a worker process."""

    def __init__(self, threads: int, device: str | None) -> None:
        environment = {**os.environ, **({} if device is None else {"CUDA_VISIBLE_DEVICES": device})}
        self.connection, theirs = _server.Pipe()
        self.process = _server.Process(target=_serve, args=(theirs, threads, environment))
        with _no_interrupts():
            _start_from_server(self.process)
        theirs.close()  # so that the pipe ends when the process does
        self.attempt: _Attempt | None = None
        self._runs = 0

    @property
    def usable(self) -> bool:
        """Whether it can take other jobs, or has some."""
        return self.attempt is not None or (self._runs < RUNS_PER_WORKER and self.process.is_alive())

    def give(self, attempt: _Attempt) -> None:
        """Let it do a group of jobs."""
        self.attempt = attempt
        self._runs += 1
        with suppress(OSError):  # if it died while idle, the end of the pipe, which is read next, tells so
            self.connection.send(attempt.jobs)

    def take(self) -> tuple[int, list[Outcome]]:
        """Number of the attempt, and the outcomes of its jobs; waits for them."""
        attempt = self.attempt
        assert attempt is not None
        try:
            outcomes: list[Outcome] = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            outcomes = [outcome_of_death(job, _death(self.process.exitcode)) for job in attempt.jobs]
        self.attempt = None
        return attempt.number, outcomes

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def _start_from_server(process: BaseProcess) -> None:
    """Start a process; the server is there anew in the moment after its own death."""
    _server.set_forkserver_preload([perform_as_worker.__module__])
    for _ in range(SECONDS_FOR_SERVER * 10):
        with suppress(EOFError, ConnectionError):
            process.start()
            return
        time.sleep(0.1)
    process.start()


def _death(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        return f"the worker process was killed by {name} (often a sign that memory ran out)"
    return f"the worker process ended with exit code {exit_code}"


def _serve(connection: Connection, threads: int, environment: Mapping[str, str]) -> None:
    """A worker's life: jobs in, outcomes out. The environment would be that of the server's start."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    while True:
        connection.send(perform_as_worker(connection.recv(), threads))


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Let a process that is started here ignore Ctrl-C, which goes to all of them; the parent stops it."""
    if threading.current_thread() is not threading.main_thread():  # where alone handlers can be set
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
