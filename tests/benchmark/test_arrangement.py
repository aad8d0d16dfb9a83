"""Groups of runs that are trained together: which they are, and that each run ends as it does alone."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from hessalign.algorithms import algorithm_names
from hessalign.benchmark.engines import LocalEngine
from hessalign.benchmark.job import Job, last_failure, perform
from hessalign.benchmark.protocol import RunConfig, SweepSpec, applicable_algorithms
from hessalign.benchmark.sweep import arrange, perform_all
from hessalign.datasets.registry import find_data
from hessalign.training import Machine, read_records
from tests.training.tiny_domains import TinyDomains
from tests.training.tiny_features import tiny_features

CPU = Machine(accelerator="cpu")
SETTINGS = {"steps": 5, "evaluate_every": 2, "fixed": {"batch_size": 4}}


@pytest.fixture
def features(tmp_path: Path) -> Path:
    tiny_features(tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def jobs(features: Path, out: Path, algorithms: Sequence[str] = ("hgp", "mixup"), **settings) -> list[Job]:
    source = find_data(str(features))
    sweep = SweepSpec(
        algorithms=tuple(algorithms),
        trials=2,
        hparams=3,
        config=RunConfig(**{**SETTINGS, **settings}),
    )
    return [Job(spec, source, out, CPU) for spec in sweep.plan(source.open(0))]


def accuracies(job: Job) -> list[dict]:
    return [record["accuracies"] for record in read_records(job.folder)]


def test_every_job_is_in_one_group_of_jobs_alike(features: Path, tmp_path: Path) -> None:
    all_jobs = jobs(features, tmp_path / "sweep")
    groups = arrange(all_jobs, 60)
    assert sorted(job.identity for group in groups for job in group) == sorted(
        job.identity for job in all_jobs
    )
    sizes = {name: [len(g) for g in groups if g[0].spec.algorithm == name] for name in ("hgp", "mixup")}
    assert sizes == {"hgp": [24, 36], "mixup": [1] * 60}  # 4 targets and 6 pairs, 2 trials, 3 draws
    for group in groups:
        assert len({len(job.spec.target_domains) for job in group}) == 1
        assert [job for job in all_jobs if job in group] == list(group)


def test_what_trains_together_goes_first(features: Path, tmp_path: Path) -> None:
    """By alphabet the plan begins with what must be trained alone, at many times the cost."""
    algorithms = ("and_mask", "erm", "mixup", "vrex")
    groups = arrange(jobs(features, tmp_path, algorithms), 60)
    order = list(dict.fromkeys(group[0].spec.algorithm for group in groups))
    assert order == ["erm", "vrex", "and_mask", "mixup"]
    assert [len(group) > 1 for group in groups] == [True] * 4 + [False] * 120
    one_by_one = arrange(jobs(features, tmp_path, algorithms), 1)
    assert one_by_one[0][0].spec.algorithm == "and_mask"  # nothing is quicker than anything else


def test_groups_are_as_small_as_asked(features: Path, tmp_path: Path) -> None:
    hgp = jobs(features, tmp_path, ["hgp"])
    assert [len(group) for group in arrange(hgp, 16)] == [16, 16, 16, 8, 4]
    assert arrange(hgp, 1) == [(job,) for job in hgp]
    assert len(arrange([*hgp, *(replace(job, keep_checkpoint=True) for job in hgp)], 60)) == 4


def test_a_group_leaves_what_its_runs_leave_alone(features: Path, tmp_path: Path) -> None:
    together, alone = (jobs(features, tmp_path / name, ["hgp"])[:7] for name in ("together", "alone"))
    (group,) = arrange([job for job in together if len(job.spec.target_domains) == 1], 60)
    outcomes = perform(group)
    assert [(outcome.job, outcome.status) for outcome in outcomes] == [(job, "finished") for job in group]
    for job in alone:
        if len(job.spec.target_domains) == 1:
            perform([job])
            other = tmp_path / "together" / "runs" / job.identity
            assert {path.name for path in other.iterdir()} == {path.name for path in job.folder.iterdir()}
            assert (other / "spec.json").read_bytes() == (job.folder / "spec.json").read_bytes()
            assert [record["accuracies"] for record in read_records(other)] == accuracies(job)


def test_finished_and_held_runs_of_a_group_are_left_alone(features: Path, tmp_path: Path) -> None:
    group = arrange(jobs(features, tmp_path / "sweep", ["erm"]), 60)[0]
    perform(group[:1])
    before = (group[0].folder / "metrics.jsonl").stat().st_mtime_ns
    group[1].folder.mkdir(parents=True)
    with FileLock(group[1].folder / ".lock"):
        statuses = {outcome.job.identity: outcome.status for outcome in perform(group)}
        assert not (group[1].folder / "spec.json").exists()
    assert [statuses[job.identity] for job in group[:3]] == ["skipped", "held", "finished"]
    assert (group[0].folder / "metrics.jsonl").stat().st_mtime_ns == before
    assert {outcome.status for outcome in perform(group)} == {"skipped", "finished"}


def test_what_fails_together_is_done_again_one_by_one(features: Path, tmp_path: Path) -> None:
    group = arrange(jobs(features, tmp_path / "sweep", ["erm"]), 60)[0][:3]
    group[1].folder.mkdir(parents=True)
    (group[1].folder / "spec.json").write_text("{}")  # of another program, so that it cannot be claimed
    with closing(LocalEngine(workers=1, threads=1, retries=1)) as engine:
        outcomes = {outcome.job.identity: outcome for outcome in perform_all(group, engine, 60)}
    assert [outcomes[job.identity].status for job in group] == ["finished", "failed", "finished"]
    assert "holds another run" in outcomes[group[1].identity].error
    failure = last_failure(group[1])
    assert failure is not None
    assert failure.attempts == 2
    assert last_failure(group[0]) is None


def test_data_that_changed_since_the_plan_fail_every_run(features: Path, tmp_path: Path) -> None:
    group = arrange(jobs(features, tmp_path / "sweep", ["erm"]), 60)[0]
    tiny_features(features, samples=41)
    assert {outcome.status for outcome in perform(group)} == {"failed"}
    failures = [last_failure(job) for job in group]
    assert all(failure and "has changed since the sweep began" in failure.error for failure in failures)


def test_all_algorithms_are_those_that_have_a_use_for_the_data(features: Path) -> None:
    dataset = find_data(str(features)).open(0)
    assert {"erm", "hgp"} < {*applicable_algorithms(dataset)}
    assert not {"arm", "cdann", "dann", "sagnet"} & {*applicable_algorithms(dataset)}
    assert {"erm", "cdann", "dann", "sagnet"} < {*applicable_algorithms(dataset, "adapter:mlp")}
    assert "arm" not in applicable_algorithms(dataset, "adapter:mlp")
    assert applicable_algorithms(TinyDomains()) == algorithm_names()


@pytest.mark.parametrize(
    ("algorithm", "backbone", "problem"),
    [
        ("arm", None, "algorithm: arm works on images, not on feature vectors"),
        ("dann", None, "algorithm: dann trains the backbone, and 'identity' has nothing to train"),
        ("erm", "resnet18", "backbone: 'resnet18' does not take the dataset's inputs"),
    ],
)
def test_what_cannot_work_is_refused_by_the_plan(
    features: Path, tmp_path: Path, algorithm: str, backbone: str | None, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        jobs(features, tmp_path, [algorithm], backbone=backbone, weights="none")
