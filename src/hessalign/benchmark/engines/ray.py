"""Tasks on a Ray cluster, or on this machine by way of Ray."""

import logging
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from hessalign.benchmark.job import (
    Job,
    Outcome,
    outcome_of_death,
    outcome_of_finished,
    outcome_of_former,
    perform_as_worker,
)
from hessalign.files import write_atomically
from hessalign.runs import DONE, HeldError, hold, is_finished
from hessalign.runs.layout import LOCK


class RayEngine:
    """One Ray task for each run, or for each group of runs that are trained together.

    Ray places them, and does again what is lost with its node; a run that fails is done again alone.

    Every node needs this package, and the data at the same path. Where a node does not share the sweep's
    folder, its runs lie at the same path of its own disk, and what they leave is sent back and written here
    when they end; a run that is lost with such a node begins anew on another.

    Args:
        address: Of a cluster, as ``ray.init`` takes it; None starts Ray here (or follows ``RAY_ADDRESS``).
        cpus_per_run: Cores that a run is given, and PyTorch's threads.
        gpus_per_run: GPUs that a run is given; a part of one lets several runs share it.
        retries: How often a failed run is done again.

    Raises:
        ValueError: If Ray is not installed, or there is no cluster at the address.
    """

    def __init__(
        self,
        address: str | None = None,
        cpus_per_run: int = 1,
        gpus_per_run: float = 0.0,
        retries: int = 1,
    ) -> None:
        self._ray = _connected(address)
        self._cpus, self._gpus, self._retries = cpus_per_run, gpus_per_run, retries
        self._pending: dict[Any, _Attempt] = {}
        self._task = self._ray.remote(
            num_cpus=cpus_per_run, num_gpus=gpus_per_run, max_retries=max(1, retries)
        )(_perform)

    def perform(self, groups: Sequence[Sequence[Job]]) -> Iterator[Outcome]:
        """The outcome of each job of each group, as they come in."""
        with ExitStack() as marks:
            marked = {
                out: marks.enter_context(_mark(out)) for out in {job.out for jobs in groups for job in jobs}
            }
            # All at once, so that a cluster that grows with its queue sees it.
            for group in groups:
                self._submit(group, marked, 1)
            while self._pending:
                for reference in self._ray.wait(list(self._pending))[0]:
                    attempt = self._pending.pop(reference)
                    for outcome in self._outcomes(reference, attempt.jobs):
                        if outcome.status == "failed" and attempt.number <= self._retries:
                            self._submit([outcome.job], marked, attempt.number + 1)
                        else:
                            yield outcome

    def running(self) -> list[Sequence[Job]]:
        """As many of the pending groups as the cluster has room for; Ray starts them in order."""
        resources = self._ray.cluster_resources()
        room = int(resources.get("CPU", 0) // self._cpus)
        if self._gpus:
            room = min(room, int(resources.get("GPU", 0) // self._gpus))
        return [attempt.jobs for attempt in list(self._pending.values())[:room]]

    def close(self) -> None:
        """Cancel what is pending, and leave the cluster."""
        for reference in self._pending:
            self._ray.cancel(reference, force=True)
        self._ray.shutdown()

    def _submit(self, jobs: Sequence[Job], marks: Mapping[Path, str], number: int) -> None:
        reference = self._task.remote(jobs, self._cpus, marks[jobs[0].out])
        self._pending[reference] = _Attempt(jobs, number)

    def _outcomes(self, reference: Any, jobs: Sequence[Job]) -> list[Outcome]:
        try:
            done: list[_Done] = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:  # the process or its node is gone
            sentence = " ".join(str(error).split())[:500]
            return [outcome_of_death(job, sentence) for job in jobs]
        return [_received(one) for one in done]


class _Attempt(NamedTuple):
    jobs: Sequence[Job]
    number: int


class _Done(NamedTuple):
    """An outcome, and what the run left where its node does not share the folder, by relative path."""

    outcome: Outcome
    files: dict[str, bytes] | None


@contextmanager
def _mark(out: Path) -> Iterator[str]:
    """A file by which a node sees whether it shares the folder; its name."""
    out.mkdir(parents=True, exist_ok=True)
    mark = out / f".shared-{secrets.token_hex(8)}"
    mark.touch()
    try:
        yield mark.name
    finally:
        mark.unlink(missing_ok=True)


def _perform(jobs: Sequence[Job], threads: int, mark: str) -> list[_Done]:
    """On a node."""
    shared = (jobs[0].out / mark).exists()
    outcomes = perform_as_worker(jobs, threads)
    return [_Done(outcome, None if shared else _left(outcome.job.folder)) for outcome in outcomes]


def _left(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != LOCK)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _received(done: _Done) -> Outcome:
    """The outcome, once what the run left lies here, too."""
    outcome, files = done
    job = outcome.job
    if files is None:
        return outcome
    try:
        with hold(job.folder, 0):
            if is_finished(job.folder):
                return outcome_of_former(job)
            if DONE not in files and outcome.status != "failed":
                return outcome
            for name, content in sorted(files.items(), key=lambda file: file[0] == DONE):  # which comes last
                (job.folder / name).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(job.folder / name, content)
    except HeldError:
        return Outcome(job, "held")
    return outcome_of_finished(job) if outcome.status == "skipped" else outcome


def _connected(address: str | None) -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a sweep tells nobody that it runs
    try:
        import ray  # noqa: PLC0415, an extra that only this engine needs
    except ImportError:
        raise ValueError("engine: 'ray' is not installed; run  pip install 'hessalign[ray]'") from None
    # Left to itself, Ray joins whatever cluster was last started here, and waits for one that is dead.
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"address: there is no Ray cluster at {where!r} ({reason})") from error
    return ray
