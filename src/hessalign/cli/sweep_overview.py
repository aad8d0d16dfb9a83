"""What a person sees of a sweep: before it (``--dry-run``), while it runs, and when it has ended."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import typer
from rich.console import Group, RenderableType
from rich.progress import track
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hessalign.benchmark.estimate import Kind, TimeLeft, kind_of, measure, measure_together
from hessalign.benchmark.job import Engine, Job, Outcome, best_validation
from hessalign.benchmark.sweep import arrange
from hessalign.cli.terminal import Console
from hessalign.datasets import DomainDataset
from hessalign.grid import NOTHING, Grid
from hessalign.markup import counted
from hessalign.runs import divergence, read_records

SECONDS_BETWEEN_READINGS = 5.0
SHOWN_FAILURES = 20
SHOWN_DIGITS = 12


@dataclass(frozen=True)
class _Estimate:
    """The runs of an algorithm on a dataset."""

    dataset: str
    algorithm: str
    runs: int
    seconds: float
    disk_bytes: int


def print_estimate(
    jobs: Sequence[Job],
    most_together: int,
    workers: int | None,
    threads: int,
    console: Console,
    as_json: bool,
    script: str | None = None,
) -> None:
    """Measure a few steps of each algorithm on each dataset, and print what follows for the whole.

    Args:
        jobs: All runs.
        most_together: Runs that are trained together at most.
        workers: Runs at a time; None if that is not known.
        threads: Of PyTorch in each run.
        console: For the progress.
        as_json: Print JSON.
        script: What would be submitted; None where nothing is.
    """
    torch.set_num_threads(threads)
    console.print(f"{counted(len(jobs), 'run')}; measuring the cost takes a few steps of each algorithm.")
    groups: dict[Kind, list[Job]] = {}
    for job in jobs:
        groups.setdefault(kind_of(job), []).append(job)
    open_once = cache(lambda source, seed: source.open(seed))
    rows = []
    for group in track(groups.values(), "measuring", console=console, transient=True):
        first = group[0]
        dataset = open_once(first.source, first.spec.trial_seed)
        rows.append(_measured(group, dataset, most_together))
    seconds, disk = sum(row.seconds for row in rows), sum(row.disk_bytes for row in rows)
    if as_json:
        document = {
            "runs": len(jobs),
            "seconds": seconds,
            "workers": workers,
            "wall_seconds": seconds / workers if workers else None,
            "bytes": disk,
            "rows": [vars(row) for row in rows],
            **({} if script is None else {"script": script}),
        }
        typer.echo(json.dumps(document, indent=2))
        return
    caption = "estimated from a few steps and one evaluation of each algorithm; one run at a time"
    grid = Grid(
        headers=("Dataset", "algorithm", "runs", "time", "disk"),
        rows=[
            (row.dataset, row.algorithm, str(row.runs), duration(row.seconds), _size(row.disk_bytes))
            for row in rows
        ],
        notes=[caption],
        align="llrrr",
        totals=[("all", "", str(len(jobs)), duration(seconds), _size(disk))],
    )
    Console().print(grid.to_rich())
    if workers:
        Console().print(f"With {workers} runs at a time about {duration(seconds / workers)}.")
    if script is not None:
        typer.echo(f"\nWhat sbatch would get:\n\n{script}")


def _measured(jobs: Sequence[Job], dataset: DomainDataset, most_together: int) -> _Estimate:
    group = arrange(jobs, most_together)[0]
    first = group[0]
    cost = measure(first.spec, dataset, first.machine)
    sizes = [len(domain) for domain in dataset.domains]
    if len(group) > 1:
        seconds = len(jobs) * measure_together([job.spec for job in group], dataset, first.machine)
    else:
        seconds = sum(cost.seconds(job.spec, sizes) for job in jobs)
    return _Estimate(
        dataset=dataset_label(first),
        algorithm=first.spec.algorithm,
        runs=len(jobs),
        seconds=seconds,
        disk_bytes=sum(
            cost.disk_bytes(job.spec, sizes, checkpoint=job.keep_checkpoint, predictions=job.save_predictions)
            for job in jobs
        ),
    )


def _size(count: int) -> str:
    """A number of bytes for a person."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"


class Overview:
    """Counts, time left, and the best of each algorithm, from the outcomes.

    Args:
        jobs: All of the sweep.
        engine: Tells what is running.
    """

    def __init__(self, jobs: Sequence[Job], engine: Engine) -> None:
        self.jobs = jobs
        self.engine = engine
        self.counts: Counter[str] = Counter()
        self.failures: list[Outcome] = []
        self.diverged: list[Job] = []
        self._rows = {_row(job): _Row() for job in jobs}
        for job in jobs:
            self._rows[_row(job)].runs += 1
        self._started = time.monotonic()
        self._time_left = TimeLeft(jobs)
        self._estimate: tuple[float, float | None] = (float("-inf"), None)

    def add(self, outcome: Outcome) -> None:
        """Take an outcome into account."""
        job, row = outcome.job, self._rows[_row(outcome.job)]
        self.counts[outcome.status] += 1
        row.counts[outcome.status] += 1
        self._time_left.add(outcome)
        self._estimate = (float("-inf"), None)
        if outcome.status == "failed":
            self.failures.append(outcome)
            return
        if divergence(read_records(job.folder)) is not None:
            self.diverged.append(job)
            row.diverged += 1
        best = best_validation(job.folder, job.spec.target_domains)
        row.best = max((value for value in (row.best, best) if value is not None), default=None)

    @property
    def left(self) -> int:
        """Runs whose outcome is not known, those that are running among them."""
        return len(self.jobs) - self.counts.total()

    def seconds_left(self) -> float | None:
        """From what was done so far, read now and then; None before anything was."""
        estimated_at, seconds = self._estimate
        if time.monotonic() - estimated_at > SECONDS_BETWEEN_READINGS:
            seconds = self._time_left.seconds(self.engine.running())
            self._estimate = (time.monotonic(), seconds)
        return seconds

    def line(self, outcome: Outcome) -> str:
        """An outcome, and where the sweep stands, for output that is not a terminal."""
        done = f"[{self.counts.total()}/{len(self.jobs)}] {outcome.job}: {outcome.status}"
        error = f" ({outcome.error})" if outcome.error else ""
        return f"{done}{error}; {duration(self.seconds_left())} to go"

    def __rich__(self) -> RenderableType:
        """The overview of this moment."""
        running = sum(map(len, self.engine.running()))
        done = self.counts.total() - self.counts["failed"]
        diverged = f" ({len(self.diverged)} diverged)" if self.diverged else ""
        counts = (
            f"{done} done{diverged}, {running} running, {self.counts['failed']} failed, "
            f"{max(self.left - running, 0)} left of {len(self.jobs)} runs; "
            f"{duration(self.seconds_left())} to go"
        )
        head = Table.grid()  # a bar does not end its line by itself
        head.add_row(ProgressBar(total=len(self.jobs), completed=self.counts.total(), width=60))
        head.add_row(Text(counts))
        return Group(head, self.table())

    def table(self) -> Table:
        """Each algorithm on each dataset."""
        diverged = ["diverged"] if self.diverged else []
        headers = ("Dataset", "algorithm", "runs", "done", *diverged, "failed", "best")
        rows = []
        for (dataset, algorithm), row in self._rows.items():
            done = row.counts.total() - row.counts["failed"]
            numbers = (row.runs, done, *([row.diverged] if self.diverged else []), row.counts["failed"])
            best = NOTHING if row.best is None else f"{100 * row.best:.1f}"
            rows.append([dataset, algorithm, *map(str, numbers), best])
        notes = ["best: accuracy in percent on the held-out split of the source domains, any run"]
        if before := self.counts["skipped"]:
            notes.append(f"{before} of {counted(len(self.jobs), 'run')} done before")
        return Grid(headers, rows, notes=notes, align="ll" + "r" * (len(headers) - 2)).to_rich()

    def print_failures(self, console: Console) -> None:
        """Which runs diverged, and which failed, and why."""
        for job in self.diverged[:SHOWN_FAILURES]:
            console.print(f"Diverged: {job} ({job.folder})", highlight=False, markup=False)
        if len(self.diverged) > SHOWN_FAILURES:
            console.print(f"... and {len(self.diverged) - SHOWN_FAILURES} more; --json names all.")
        for outcome in self.failures[:SHOWN_FAILURES]:
            text = f"Failed: {outcome.job}: {outcome.error} ({outcome.job.folder})"
            console.print(text, highlight=False, markup=False)
        if len(self.failures) > SHOWN_FAILURES:
            console.print(f"... and {len(self.failures) - SHOWN_FAILURES} more; --json names all.")

    def document(self) -> dict[str, Any]:
        """All of it as JSON."""
        rows = [
            {
                "dataset": dataset,
                "algorithm": algorithm,
                "runs": row.runs,
                "finished": row.counts["finished"] + row.counts["diverged"],
                "skipped": row.counts["skipped"],
                "failed": row.counts["failed"],
                "diverged": row.diverged,
                "best_validation": row.best,
            }
            for (dataset, algorithm), row in self._rows.items()
        ]
        failures = [
            {"run": str(outcome.job), "folder": str(outcome.job.folder), "error": outcome.error}
            for outcome in self.failures
        ]
        diverged = [{"run": str(job), "folder": str(job.folder)} for job in self.diverged]
        return {
            "runs": len(self.jobs),
            "finished": self.counts["finished"] + self.counts["diverged"],
            "skipped": self.counts["skipped"],
            "failed": self.counts["failed"],
            "seconds": round(time.monotonic() - self._started, 3),
            "rows": rows,
            "failures": failures,
            "diverged": diverged,
        }


class _Row:
    def __init__(self) -> None:
        self.runs = 0
        self.counts: Counter[str] = Counter()
        self.diverged = 0
        self.best: float | None = None


def duration(seconds: float | None) -> str:
    """A time for a person."""
    if seconds is None:
        return "unknown time"
    for unit, name in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"


def dataset_label(job: Job) -> str:
    """A job's data for a person: their name, and as much of the fingerprint as tells them from others."""
    return f"{job.data_name} {job.spec.data[:SHOWN_DIGITS]}" if job.spec.data else job.data_name


def _row(job: Job) -> tuple[str, str]:
    return dataset_label(job), job.spec.algorithm
