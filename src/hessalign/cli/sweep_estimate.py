"""``hessalign sweep --dry-run``: how many runs there are, and what they will cost."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import typer
from rich.progress import track
from rich.table import Table

from hessalign.benchmark.arrangement import arrange
from hessalign.benchmark.estimate import measure, measure_together
from hessalign.benchmark.job import Job
from hessalign.cli.sweep_overview import dataset_label, duration
from hessalign.cli.terminal import Console


@dataclass(frozen=True)
class _Row:
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
) -> None:
    """Measure a few steps of each algorithm on each dataset, and print what follows for the whole.

    Args:
        jobs: All runs.
        most_together: Runs that are trained together at most.
        workers: Runs at a time; None if that is not known.
        threads: Of PyTorch in each run.
        console: For the progress.
        as_json: Print JSON.
    """
    torch.set_num_threads(threads)
    groups: dict[tuple[str, str, str], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.spec.dataset, job.spec.data, job.spec.algorithm), []).append(job)
    rows = [
        _measured(group, most_together)
        for group in track(groups.values(), "measuring", console=console, transient=True)
    ]
    seconds, disk = sum(row.seconds for row in rows), sum(row.disk_bytes for row in rows)
    if as_json:
        document = {
            "runs": len(jobs),
            "seconds": seconds,
            "workers": workers,
            "wall_seconds": seconds / workers if workers else None,
            "bytes": disk,
            "rows": [vars(row) for row in rows],
        }
        typer.echo(json.dumps(document, indent=2))
        return
    caption = "estimated from a few steps and one evaluation of each algorithm; time of one worker"
    table = Table(caption=caption)
    for column in ("Dataset", "algorithm", "runs", "time", "disk"):
        table.add_column(column, justify="left" if column in ("Dataset", "algorithm") else "right")
    for row in rows:
        table.add_row(row.dataset, row.algorithm, str(row.runs), duration(row.seconds), _size(row.disk_bytes))
    table.add_section()
    table.add_row("all", "", str(len(jobs)), duration(seconds), _size(disk))
    Console().print(table)
    if workers:
        Console().print(f"With {workers} runs at a time about {duration(seconds / workers)}.")


def _measured(jobs: Sequence[Job], most_together: int) -> _Row:
    group = arrange(jobs, most_together)[0]
    first = group[0]
    dataset = first.source.open(first.spec.trial_seed)
    cost = measure(first.spec, dataset, first.machine)
    sizes = [len(domain) for domain in dataset.domains]
    if len(group) > 1:
        seconds = len(jobs) * measure_together([job.spec for job in group], dataset, first.machine)
    else:
        seconds = sum(cost.seconds(job.spec, sizes) for job in jobs)
    return _Row(
        dataset=dataset_label(first.spec),
        algorithm=first.spec.algorithm,
        runs=len(jobs),
        seconds=seconds,
        disk_bytes=sum(cost.disk_bytes(job.spec, job.keep_checkpoint) for job in jobs),
    )


def _size(count: int) -> str:
    """A number of bytes for a person."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"
