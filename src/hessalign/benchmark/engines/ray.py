"""Tasks on a Ray cluster, or on this machine by way of Ray."""

import logging
import os
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from hessalign.benchmark.job import (
    Job,
    Outcome,
    last_failure,
    outcome_of_death,
    outcome_of_finished,
    perform_as_worker,
)
from hessalign.runs import is_finished


class RayEngine:
    """One Ray task for each run, or for each group of runs that are trained together.

    Ray places them, and retries what fails or is lost with its node.

    Every node needs this package, the data at the same path, and the sweep's folder on a file system that all
    share.

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
        self._cpus, self._gpus = cpus_per_run, gpus_per_run
        self._pending: dict[Any, Sequence[Job]] = {}
        self._task = self._ray.remote(
            num_cpus=cpus_per_run,
            num_gpus=gpus_per_run,
            max_retries=retries,
            retry_exceptions=[RunFailedError],
        )(_perform)

    def perform(self, groups: Sequence[Sequence[Job]]) -> Iterator[Outcome]:
        """The outcome of each job of each group, as they come in."""
        # All at once, so that a cluster that grows with its queue sees it.
        self._pending = {self._task.remote(group, self._cpus): group for group in groups}
        while self._pending:
            for reference in self._ray.wait(list(self._pending))[0]:
                yield from self._outcomes(reference, self._pending.pop(reference))

    def running(self) -> list[Sequence[Job]]:
        """As many of the pending groups as the cluster has room for; Ray starts them in order."""
        resources = self._ray.cluster_resources()
        room = int(resources.get("CPU", 0) // self._cpus)
        if self._gpus:
            room = min(room, int(resources.get("GPU", 0) // self._gpus))
        return list(self._pending.values())[:room]

    def close(self) -> None:
        """Cancel what is pending, and leave the cluster."""
        for reference in self._pending:
            self._ray.cancel(reference, force=True)
        self._ray.shutdown()

    def _outcomes(self, reference: Any, jobs: Sequence[Job]) -> list[Outcome]:
        try:
            outcomes: list[Outcome] = self._ray.get(reference)
        except RunFailedError:
            return [_told_by_folder(job) for job in jobs]  # the error itself shows Ray's own frames
        except self._ray.exceptions.RayError as error:  # the process or its node is gone
            sentence = " ".join(str(error).split())[:500]
            return [outcome_of_death(job, sentence) for job in jobs]
        return outcomes


class RunFailedError(Exception):
    """A run failed; raised so that Ray does it again."""


def _told_by_folder(job: Job) -> Outcome:
    """What became of a job of a group in which some failed."""
    if is_finished(job.folder):
        return outcome_of_finished(job)
    failure = last_failure(job)
    return Outcome(job, "failed", failure.error) if failure else Outcome(job, "held")


def _perform(jobs: Sequence[Job], threads: int) -> list[Outcome]:
    outcomes = perform_as_worker(jobs, threads)
    errors = [outcome.error for outcome in outcomes if outcome.status == "failed"]
    if errors:
        raise RunFailedError(errors[0])
    return outcomes


def _connected(address: str | None) -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a sweep tells nobody that it runs
    try:
        import ray  # noqa: PLC0415, an extra that only this engine needs
    except ImportError:
        raise ValueError("engine: 'ray' is not installed; run  pip install 'hessalign[ray]'") from None
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"address: there is no Ray cluster at {address!r} ({reason})") from error
    return ray
