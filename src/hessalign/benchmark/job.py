"""One run of a sweep: done in a folder of its own, by one process at a time."""

import shutil
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel

from hessalign.benchmark.run_folder import ERROR
from hessalign.datasets import DomainDataset
from hessalign.datasets.source import DataSource
from hessalign.files import write_atomically
from hessalign.training import Machine, RunSpec, is_finished, read_records, train
from hessalign.training.records import source_accuracy
from hessalign.training.trainer import CHECKPOINTS, claim

RUNS, LOCKS = "runs", "locks"


@dataclass(frozen=True)
class Job:
    """A run, and what a process must know to do it.

    Attributes:
        spec: The run.
        source: Where its data lies.
        out: Folder of the sweep.
        machine: Where to compute it.
        keep_checkpoint: Keep the last checkpoint of a finished run.
    """

    spec: RunSpec
    source: DataSource
    out: Path
    machine: Machine
    keep_checkpoint: bool = False

    @cached_property
    def identity(self) -> str:
        """Of the spec."""
        return self.spec.identity()

    @property
    def folder(self) -> Path:
        """Of the run alone."""
        return self.out / RUNS / self.identity

    @property
    def lock(self) -> Path:
        """The file whose lock is held by whoever does the run."""
        return self.out / LOCKS / f"{self.identity}.lock"

    def __str__(self) -> str:
        """For a person."""
        spec = self.spec
        targets = ",".join(map(str, spec.target_domains))
        return (
            f"{spec.algorithm} on {spec.dataset}, target {targets}, trial {spec.trial_seed}, "
            f"draw {spec.hparams_seed}"
        )


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: The job.
        status: ``"finished"`` now; ``"skipped"``, since it was finished before; ``"held"``, since another
            process is at it; or ``"failed"``.
        error: What went wrong, in one sentence.
    """

    job: Job
    status: Literal["finished", "skipped", "held", "failed"]
    error: str = ""


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


def perform(job: Job) -> Outcome:
    """Do a run, or go on with it, unless it is finished or another process is at it.

    A failure is left in the run's folder as ``error.json`` until the run succeeds. The lock is the operating
    system's: it ends with the process, however that ends.
    """
    job.lock.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(job.lock)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return Outcome(job, "held")
    try:
        return _perform(job)
    finally:
        lock.release()


def is_held(job: Job) -> bool:
    """Whether a process is at the job."""
    lock = FileLock(job.lock)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False


def record_failure(job: Job, error: str, trace: str = "") -> Outcome:
    """Leave word of a failure in the run's folder."""
    job.folder.mkdir(parents=True, exist_ok=True)
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
    """What the run's folder tells of its last failure; None if there was none, or the run succeeded since."""
    path = job.folder / ERROR
    return Failure.model_validate_json(path.read_bytes()) if path.exists() else None


def best_validation(folder: Path, targets: tuple[int, ...]) -> float | None:
    """Best mean accuracy on the held-out parts of a run's source domains; None before any evaluation."""
    return max((source_accuracy(record, targets) for record in read_records(folder)), default=None)


def _perform(job: Job) -> Outcome:
    if is_finished(job.folder):
        return Outcome(job, "skipped")
    try:
        claim(job.folder, job.spec)
        train(job.spec, _open(job), job.folder, job.machine)
    except Exception as error:  # whatever an algorithm raises must not end the sweep
        return record_failure(job, _sentence(error), traceback.format_exc())
    (job.folder / ERROR).unlink(missing_ok=True)
    if not job.keep_checkpoint:
        shutil.rmtree(job.folder / CHECKPOINTS, ignore_errors=True)
    return Outcome(job, "finished")


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
