"""The time that a sweep still takes, from the first group on."""

from pathlib import Path

import pytest

from hessalign.benchmark.estimate import TimeLeft
from hessalign.benchmark.job import Job, Outcome
from hessalign.datasets.registry import DataSource
from hessalign.runs import append_record
from hessalign.training import Machine
from tests.training.tiny_features import feature_spec

RUNS = 60


def runs_of(algorithm: str, out: Path) -> list[Job]:
    source = DataSource("features_file", out / "f.safetensors")
    return [
        Job(feature_spec(algorithm, steps=100, seed=seed), source, out, Machine()) for seed in range(RUNS)
    ]


def test_the_first_group_gives_a_sensible_estimate(tmp_path: Path) -> None:
    """A run that must be trained alone is no sixtieth of a group, which is all that is known of anything."""
    together, other, alone = (runs_of(name, tmp_path) for name in ("erm", "vrex", "and_mask"))
    left = TimeLeft([*alone, *together, *other])
    assert left.seconds([together]) is None
    for job in together:
        left.add(Outcome(job, "finished", seconds=0.5, together=RUNS))
    assert left.seconds([]) == pytest.approx(RUNS * 0.5 + RUNS * 30.0)
    for job in other:
        left.add(Outcome(job, "finished", seconds=1.5, together=RUNS))
    assert left.seconds([]) == pytest.approx(RUNS * (30.0 + 90.0) / 2)
    left.add(Outcome(alone[0], "finished", seconds=7.0))  # now it is known
    assert left.seconds([]) == pytest.approx((RUNS - 1) * 7.0)
    assert left.seconds([[job] for job in alone[1:5]]) == pytest.approx((RUNS - 1) * 7.0 / 4, rel=1e-3)
    for job in alone[1:]:
        left.add(Outcome(job, "skipped"))
    assert left.seconds([]) == 0


def test_a_run_under_way_tells_of_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("hessalign.benchmark.estimate.time.monotonic", lambda: clock[0])
    jobs = runs_of("and_mask", tmp_path)
    left = TimeLeft(jobs)
    jobs[0].folder.mkdir(parents=True)
    accuracies = {"north": {"in": 0.5, "out": 0.5}}
    append_record(jobs[0].folder, {"step": 0, "accuracies": accuracies})
    assert left.seconds([jobs[:1]]) is None  # the first evaluation tells of the start
    clock[0] += 10
    append_record(jobs[0].folder, {"step": 49, "accuracies": accuracies})
    assert left.seconds([jobs[:1]]) == pytest.approx(RUNS * 20.0 - 10.0)


def test_a_run_that_is_resumed_is_not_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("hessalign.benchmark.estimate.time.monotonic", lambda: clock[0])
    jobs = runs_of("and_mask", tmp_path)
    left = TimeLeft(jobs)
    jobs[0].folder.mkdir(parents=True)
    accuracies = {"north": {"in": 0.5, "out": 0.5}}
    append_record(jobs[0].folder, {"step": 79, "accuracies": accuracies})
    assert left.seconds([jobs[:1]]) is None
    clock[0] += 10
    append_record(jobs[0].folder, {"step": 89, "accuracies": accuracies})
    assert left.seconds([jobs[:1]]) == pytest.approx(RUNS * 100.0 - 90.0)
