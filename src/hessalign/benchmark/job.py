"""Runs of a sweep: each done in a folder of its own, by one process at a time."""

import math
import os
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, Protocol

import torch
from pydantic import BaseModel

from hessalign.datasets import DomainDataset
from hessalign.datasets.registry import USERS_OWN, DataSource
from hessalign.exceptions import DivergedError, HessalignWarning
from hessalign.files import shown, write_atomically
from hessalign.memory import keep_freed_memory
from hessalign.runs import (
    ERROR,
    RUNS,
    HeldError,
    divergence,
    hold,
    is_finished,
    layout,
    read_as,
    read_records,
    source_accuracy,
)
from hessalign.training import Machine, Progress, RunSpec, RunTracking, train, train_together


@dataclass(frozen=True)
class Job:
    """A run, and what a process must know to do it.

    Attributes:
        spec: The run.
        source: Where its data lies.
        out: Folder of the sweep.
        machine: Where to compute it.
        keep_checkpoint: Keep the last checkpoint of a finished run.
        save_predictions: Keep the predictions of every evaluation.
        track: Names of trackers that get the run's scalars; those of a sweep share its folder.
    """

    spec: RunSpec
    source: DataSource
    out: Path
    machine: Machine
    keep_checkpoint: bool = False
    save_predictions: bool = False
    track: tuple[str, ...] = ()

    @cached_property
    def identity(self) -> str:
        """Of the spec."""
        return self.spec.identity()

    @property
    def folder(self) -> Path:
        """Of the run alone."""
        return self.out / RUNS / self.identity

    @property
    def data_name(self) -> str:
        """What a person calls the data: the name of a folder or a file of one's own, or the dataset's."""
        root = self.source.root
        if root is None or self.spec.dataset not in USERS_OWN:
            return self.spec.dataset
        return shown(os.path.basename(os.path.abspath(root))) or self.spec.dataset

    @property
    def work(self) -> int:
        """What runs of one algorithm on one dataset cost, up to a factor."""
        return self.spec.steps * int(self.spec.hparams["batch_size"])

    def share_done(self) -> float:
        """How much of the run is done, 0 to 1, by its latest evaluation.

        Returns:
            The share.

        Raises:
            ValueError: If its records are damaged.
            OSError: If they cannot be read.
        """
        records = read_records(self.folder)
        return (records[-1]["step"] + 1) / self.spec.steps if records else 0.0

    def __str__(self) -> str:
        """For a person."""
        spec = self.spec
        targets = ",".join(map(str, spec.target_domains))
        return (
            f"{spec.algorithm} on {self.data_name}, target {targets}, trial {spec.trial_seed}, "
            f"draw {spec.hparams_seed}"
        )


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: The job.
        status: ``"finished"`` now; ``"diverged"`` now, which ends a run, too; ``"skipped"``, since it was
            done before; ``"held"``, since another process is at it; or ``"failed"``.
        error: What went wrong, in one sentence.
        seconds: What all steps of the run take a process, measured, as its share of what is trained together;
            None (default) where it was not done here and now.
        together: Number of runs that were trained together; 1 by default.
        warned: What the library warned of in a worker; of runs that were trained together the first one has
            it.
    """

    job: Job
    status: Literal["finished", "diverged", "skipped", "held", "failed"]
    error: str = ""
    seconds: float | None = None
    together: int = 1
    warned: tuple[HessalignWarning, ...] = ()


class Engine(Protocol):
    """Does groups of jobs, several at a time, failed ones again as often as it was told."""

    def perform(self, groups: Sequence[Sequence[Job]]) -> Iterator[Outcome]:
        """The outcome of each job of each group, as they come in."""

    def running(self) -> list[Sequence[Job]]:
        """The groups that are being done now, as far as is known."""

    def close(self) -> None:
        """Stop at once; runs that are being done can be resumed from their checkpoints."""


class Failure(BaseModel):
    """The file ``error.json`` in the folder of a run that failed.

    Attributes:
        error: One sentence.
        traceback: Where it was raised; empty if the process itself died.
        attempts: How often the run has failed so far.
        when: The last time, ISO, UTC.
    """

    error: str
    traceback: str
    attempts: int
    when: str


def perform(jobs: Sequence[Job]) -> list[Outcome]:
    """Do a run, or go on with it; or do several that can be trained together.

    Runs that are finished, and those that another process is at, are left alone. A failure is left in a run's
    folder as ``error.json`` until the run succeeds; what fails together fails for each. A run that diverges
    has not failed: it is done, and its record says how it ended. The locks are the operating system's: they
    end with the process, however that ends.

    Args:
        jobs: One, or several that [arrange][hessalign.benchmark.sweep.arrange] puts together.

    Returns:
        The outcome of each, in any order.
    """
    outcomes, left = [], []
    with ExitStack() as locks:
        for job in jobs:
            try:
                locks.enter_context(hold(job.folder, 0))
            except HeldError:
                outcomes.append(Outcome(job, "held"))
                continue
            if is_finished(job.folder):
                outcomes.append(outcome_of_former(job))
            else:
                left.append(job)
        return outcomes + _perform(left)


def perform_as_worker(jobs: Sequence[Job], threads: int) -> list[Outcome]:
    """``perform`` in a process that does nothing else: with so many threads, and keeping freed memory.

    The library's warnings go with the outcomes to whoever started the sweep; nobody reads a worker's own.

    Args:
        jobs: As for ``perform``.
        threads: Of PyTorch.

    Returns:
        The outcome of each.
    """
    torch.set_num_threads(threads)
    if jobs[0].machine.computes_here:
        keep_freed_memory()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", HessalignWarning)
        first, *others = perform(jobs)
    heard: dict[str, HessalignWarning] = {}
    for each in caught:
        if isinstance(each.message, HessalignWarning):
            heard.setdefault(str(each.message), each.message)
        else:
            warnings.showwarning(each.message, each.category, each.filename, each.lineno)
    return [replace(first, warned=tuple(heard.values())), *others]


def is_held(job: Job) -> bool:
    """Whether a process is at the job."""
    return layout.is_held(job.folder)


def outcome_of_death(job: Job, error: str) -> Outcome:
    """The outcome of a job whose process died; of a group some runs may be finished by then."""
    return outcome_of_finished(job) if is_finished(job.folder) else record_failure(job, error)


def outcome_of_former(job: Job) -> Outcome:
    """The outcome of a run that was done before; one whose records are damaged counts as failed."""
    try:
        read_records(job.folder)
    except (ValueError, OSError) as error:
        return Outcome(job, "failed", str(error))
    return Outcome(job, "skipped")


def outcome_of_finished(job: Job) -> Outcome:
    """How a run that is done has ended.

    Returns:
        Its status tells it.

    Raises:
        ValueError: If its records are damaged.
    """
    records = read_records(job.folder)
    problem = divergence(records)
    if problem is None:
        return Outcome(job, "finished")
    return Outcome(job, "diverged", f"{problem} at step {records[-1]['step']}")


def record_failure(job: Job, error: str, trace: str = "") -> Outcome:
    """Leave word of a failure in the run's folder."""
    job.folder.mkdir(parents=True, exist_ok=True)
    before = None
    with suppress(ValueError, OSError):  # a damaged note must not hide the failure that is to be noted
        before = last_failure(job)
    failure = Failure(
        error=error,
        traceback=trace,
        attempts=1 if before is None else before.attempts + 1,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_atomically(job.folder / ERROR, failure.model_dump_json(indent=1))
    return Outcome(job, "failed", error)


def last_failure(job: Job) -> Failure | None:
    """What the run's folder tells of its last failure; None if there was none, or the run succeeded since.

    Returns:
        The note, or None.

    Raises:
        ValueError: If the file is damaged, naming it.
    """
    path = job.folder / ERROR
    return read_as(Failure, path) if path.exists() else None


def best_validation(folder: Path, targets: tuple[int, ...]) -> float | None:
    """Best mean accuracy on the held-out parts of a run's source domains; None before any evaluation."""
    values = (source_accuracy(record, targets) for record in read_records(folder))
    return max((value for value in values if not math.isnan(value)), default=None)


def _perform(jobs: Sequence[Job]) -> list[Outcome]:
    started = time.perf_counter()
    try:
        before = jobs[0].share_done() if len(jobs) == 1 else 0.0
        _train(jobs)
        seconds = (time.perf_counter() - started) / max(1, len(jobs))
        outcomes = [_measured(outcome_of_finished(job), seconds, before, len(jobs)) for job in jobs]
    except Exception as error:  # whatever an algorithm raises must not end the sweep
        trace = traceback.format_exc()
        return [record_failure(job, _sentence(error), trace) for job in jobs]
    for job in jobs:
        (job.folder / ERROR).unlink(missing_ok=True)
    return outcomes


def _measured(outcome: Outcome, seconds: float, before: float, together: int) -> Outcome:
    """With the time of all steps, from that of the steps that were done now."""
    done = outcome.job.share_done() - before if together == 1 else 1.0
    return replace(outcome, seconds=seconds / done if done > 0 else None, together=together)


def _train(jobs: Sequence[Job]) -> None:
    if len(jobs) == 1:
        (job,) = jobs
        with suppress(DivergedError), _tracked(job) as report:
            train(
                job.spec,
                _open(job),
                job.folder,
                job.machine,
                report,
                keep_checkpoint=job.keep_checkpoint,
                save_predictions=job.save_predictions,
            )
    elif jobs:
        first = jobs[0]
        train_together(
            [job.spec for job in jobs],
            _open(first),
            [job.folder for job in jobs],
            first.machine,
            checkpoints=first.keep_checkpoint,
            save_predictions=first.save_predictions,
        )
        for job in jobs:
            if job.track:
                tracking = RunTracking(job.track, job.folder, job.spec, job.out)
                tracking.write_records(read_records(job.folder))
                tracking.close()


@contextmanager
def _tracked(job: Job) -> Iterator[Callable[[Progress], None] | None]:
    """What a run reports its steps to; None without trackers."""
    if not job.track:
        yield None
        return
    tracking = RunTracking(job.track, job.folder, job.spec, job.out)
    try:
        yield tracking.write
    finally:
        tracking.close()


def _open(job: Job) -> DomainDataset:
    dataset = _cached_dataset(job.source, job.spec.trial_seed)
    if dataset.fingerprint != job.spec.data:
        raise ValueError(f"data: {job.source.root} has changed since the sweep began")
    return dataset


@lru_cache(maxsize=1)
def _cached_dataset(source: DataSource, trial_seed: int) -> DomainDataset:
    """Runs of a trial follow one another and share its data."""
    return source.open(trial_seed)


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, ValueError | OSError) and text else f"{type(error).__name__}: {text}"
