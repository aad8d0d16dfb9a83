"""Runs of a sweep on frozen features: 4 domains of 250 samples, 1,280 features, 7 classes, 100 steps.

Runs that are trained together, sixty at most, against three of them one by one, with all that a run of a
sweep reads and writes; times are of one run.
"""

import tempfile
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch

from benchmarks.timing import Comparison, median_seconds
from hessalign.benchmark.job import Job, perform
from hessalign.benchmark.protocol import RunConfig, SweepSpec
from hessalign.benchmark.sweep import arrange
from hessalign.datasets.features_file import save_features
from hessalign.datasets.registry import DataSource, find_data
from hessalign.training import Machine

RUNS, ALONE, STEPS, SAMPLES, WIDTH, CLASSES, DOMAINS = 60, 3, 100, 250, 1280, 7, 4
ALGORITHMS = ("erm", "fishr", "hgp", "exact_hessian")


def features(path: Path) -> DataSource:
    """Random features in a file."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(DOMAINS * SAMPLES, WIDTH, generator=generator)
    labels = torch.randint(0, CLASSES, (DOMAINS * SAMPLES,), generator=generator)
    save_features(path, values.half(), labels, torch.arange(DOMAINS).repeat_interleave(SAMPLES))
    return find_data(str(path))


def largest_group(algorithm: str, source: DataSource, out: Path) -> tuple[Job, ...]:
    """Of the runs of a small sweep, those that are trained together."""
    config = RunConfig(steps=STEPS, evaluate_every=STEPS)
    sweep = SweepSpec(algorithms=(algorithm,), trials=1, targets="singles", config=config)
    jobs = [Job(spec, source, out, Machine("cpu")) for spec in sweep.plan(source.open(0))]
    return max(arrange(jobs, RUNS), key=len)


def compare(algorithm: str, folder: Path) -> Comparison:
    """Time both ways in turn."""
    group = largest_group(algorithm, features(folder / "features.safetensors"), folder)
    numbers = count()

    def fresh(jobs: tuple[Job, ...]) -> list[Job]:
        out = folder / str(next(numbers))
        return [replace(job, out=out) for job in jobs]

    def together() -> None:
        perform(fresh(group))

    def one_by_one() -> None:
        for job in fresh(group[:ALONE]):
            perform([job])

    seconds = median_seconds({"together": together, "alone": one_by_one}, rounds=2, warm_up=1)
    return Comparison(
        f"run of {algorithm}, {len(group)} together",
        "one by one",
        seconds["together"] / len(group),
        seconds["alone"] / ALONE,
        "faster",
    )


def run() -> list[Comparison]:
    """Time each algorithm."""
    comparisons = []
    for algorithm in ALGORITHMS:
        with tempfile.TemporaryDirectory() as folder:
            comparisons.append(compare(algorithm, Path(folder)))
    return comparisons
