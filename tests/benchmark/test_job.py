"""One run of a sweep, its failures and its lock."""

import json
import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from hessalign.backbones import BackboneSpec, make_backbone
from hessalign.benchmark import estimate, read_sweep
from hessalign.benchmark import job as job_module
from hessalign.benchmark.estimate import Cost, evaluated_samples, evaluations, measure
from hessalign.benchmark.job import (
    Job,
    Outcome,
    best_validation,
    is_held,
    last_failure,
    perform,
    perform_as_worker,
)
from hessalign.benchmark.protocol import RunConfig, SweepSpec
from hessalign.benchmark.sweep import claim_sweep, perform_all
from hessalign.datasets.registry import DataSource, find_data
from hessalign.exceptions import NoEffectWarning, UntrustworthyWarning
from hessalign.training import Machine, Recipe, RunSpec, is_finished, make_recipe, read_records, train
from tests.datasets.images import write_image
from tests.training.tiny_domains import TinyDomains, tiny_spec
from tests.training.tiny_features import feature_spec, tiny_features

CPU = Machine(accelerator="cpu")
SETTINGS = {
    "steps": 3,
    "evaluate_every": 2,
    "backbone": "torchvision:mobilenet_v3_small",
    "weights": "none",
    "evaluation_samples": 2,
    "fixed": {"batch_size": 2},
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for domain in ("dim", "mid", "vivid"):
        for name in ("blue", "red"):
            for number in range(3):
                write_image(tmp_path / "images" / domain / name / f"{number}.png")
    return tmp_path / "images"


def jobs(images: Path, out: Path, **settings: object) -> list[Job]:
    source = find_data(str(images))
    sweep = SweepSpec(algorithms=("erm",), trials=1, hparams=1, config=RunConfig(**{**SETTINGS, **settings}))
    return [Job(spec, source, out, CPU) for spec in sweep.plan(source.open(0))]


def perform_one(job: Job) -> Outcome:
    (outcome,) = perform([job])
    return outcome


def test_a_run_leaves_its_records_and_no_checkpoint(images: Path, tmp_path: Path) -> None:
    job = jobs(images, tmp_path / "sweep")[0]
    assert perform_one(job).status == "finished"
    assert job.folder == tmp_path / "sweep" / "runs" / job.spec.identity()
    assert {path.name for path in job.folder.iterdir()} == {"spec.json", "metrics.jsonl", "done", ".lock"}
    before = (job.folder / "metrics.jsonl").read_bytes()
    assert perform_one(job).status == "skipped"
    assert (job.folder / "metrics.jsonl").read_bytes() == before
    records = read_records(job.folder)
    means = [sum(record["accuracies"][name]["out"] for name in ("mid", "vivid")) / 2 for record in records]
    assert best_validation(job.folder, (0,)) == max(means)
    kept = replace(jobs(images, tmp_path / "kept")[0], keep_checkpoint=True)
    perform_one(kept)
    assert (kept.folder / "checkpoints" / "latest").exists()


def test_a_failure_is_told_until_the_run_succeeds(images: Path, tmp_path: Path) -> None:
    job = jobs(images, tmp_path / "sweep")[0]
    picture = images / "vivid" / "red" / "2.png"
    whole = picture.read_bytes()
    for path in images.glob("*/*/*.png"):
        path.write_bytes(b"broken")
    for attempts in (1, 2):
        outcome = perform_one(job)
        assert outcome.status == "failed"
        assert "the image cannot be read" in outcome.error
        failure = last_failure(job)
        assert failure is not None
        assert (failure.error, failure.attempts) == (outcome.error, attempts)
        assert "read_image" in failure.traceback
        assert failure.when.endswith("+00:00")
        assert not is_finished(job.folder)
    for path in images.glob("*/*/*.png"):
        path.write_bytes(whole)
    assert perform_one(job).status == "finished"
    assert last_failure(job) is None


class InThisProcess:
    """An engine whose worker is this process."""

    def perform(self, groups: Sequence[Sequence[Job]]) -> Iterator[Outcome]:
        for group in groups:
            yield from perform_as_worker(group, torch.get_num_threads())

    def running(self) -> list[Sequence[Job]]:
        return []

    def close(self) -> None:
        pass


def feature_jobs(folder: Path, *recipes: tuple[Recipe | None, int]) -> list[Job]:
    """A run for each recipe and number of steps."""
    data = tiny_features(folder / "tiny.safetensors")
    source = find_data(str(folder / "tiny.safetensors"))
    return [
        Job(
            feature_spec(recipe=recipe, steps=steps, data=data.fingerprint, seed=seed),
            source,
            folder / "sweep",
            CPU,
        )
        for seed, (recipe, steps) in enumerate(recipes)
    ]


def test_what_workers_warn_of_is_warned_of_where_the_sweep_is(tmp_path: Path) -> None:
    """Told in the worker it would be nobody's, or a line of code among a hundred others."""
    late = make_recipe(average="sma")
    planned = feature_jobs(tmp_path, (late, 3), (late, 2), (None, 1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        told = []
        for outcome in perform_all(planned, InThisProcess(), 1):
            assert outcome.status == "finished"
            told.append(len(caught))
    first = "average_from: 100 of 3 steps, so there is nothing to average, and the latest network predicts"
    assert told == [1, 1, 1]  # the second differs in a number
    assert [each.category for each in caught] == [NoEffectWarning, NoEffectWarning]
    assert str(caught[0].message).startswith(first)
    assert "(the first of 2 such warnings, which differ at most in numbers)" in str(caught[1].message)
    assert {Path(each.filename).name for each in caught} == {"test_job.py"}


def test_others_warnings_stay_with_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(*arguments: object, **options: object) -> None:
        warnings.warn("someone else's", UserWarning, stacklevel=1)
        train(*arguments, **options)

    monkeypatch.setattr(job_module, "train", warn)
    shown = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *given: shown.append(str(given[0]))
        (outcome,) = perform_as_worker(feature_jobs(tmp_path, (None, 1)), torch.get_num_threads())
    assert outcome.warned == ()
    assert shown == ["someone else's"]


def test_a_held_run_is_left_alone(images: Path, tmp_path: Path) -> None:
    job = jobs(images, tmp_path / "sweep")[0]
    job.folder.mkdir(parents=True)
    with FileLock(job.folder / ".lock"):
        assert perform_one(job).status == "held"
        assert is_held(job)
    assert [path.name for path in job.folder.iterdir()] == [".lock"]
    assert not is_held(job)


def test_moving_the_data_changes_no_identity(images: Path, tmp_path: Path) -> None:
    before = [job.identity for job in jobs(images, tmp_path)]
    table = images / "table.csv"
    rows = [
        f"{path.relative_to(images)},{path.parent.name},{path.parts[-3]}" for path in images.rglob("*.png")
    ]
    table.write_text("\n".join(["path,label,domain", *rows]))
    before_csv = [job.identity for job in jobs(table, tmp_path)]
    assert not set(before) & set(before_csv)
    moved = tmp_path / "elsewhere" / "deep"
    moved.parent.mkdir()
    shutil.move(images, moved)
    assert [job.identity for job in jobs(moved, tmp_path / "out")] == before
    assert [job.identity for job in jobs(moved / "table.csv", tmp_path)] == before_csv
    shutil.copy(moved / "dim" / "red" / "0.png", moved / "dim" / "red" / "9.png")
    assert not set(before) & {job.identity for job in jobs(moved, tmp_path)}


def test_data_that_changed_since_the_plan_fail_the_run(images: Path, tmp_path: Path) -> None:
    job = jobs(images, tmp_path / "sweep")[0]
    shutil.copy(images / "dim" / "red" / "0.png", images / "dim" / "red" / "9.png")
    assert "has changed since the sweep began" in perform_one(job).error


@pytest.mark.parametrize("below", ["", "PACS"])
def test_an_incomplete_copy_of_a_published_dataset_is_told_apart(tmp_path: Path, below: str) -> None:
    root = tmp_path / below
    for domain in ("art_painting", "cartoon", "photo", "sketch"):
        write_image(root / domain / "dog" / "1.png")
    first = DataSource("pacs", tmp_path).open(0).fingerprint
    assert len(first) == 12
    assert DataSource("pacs", root).open(0).fingerprint == first
    write_image(root / "photo" / "dog" / "2.png")
    assert DataSource("pacs", tmp_path).open(0).fingerprint != first


def test_a_folder_is_shared_by_sweeps_of_equal_settings_only(tmp_path: Path) -> None:
    sweep = SweepSpec(algorithms=("erm",), config=RunConfig(steps=300))
    claim_sweep(tmp_path, sweep, ["pacs"])
    claim_sweep(tmp_path, sweep.model_copy(update={"algorithms": ("hgp",), "trials": 5}), ["vlcs"])
    document = json.loads((tmp_path / "sweep.json").read_text())
    assert (document["datasets"], document["algorithms"], document["trials"]) == (["vlcs"], ["hgp"], 5)
    other = sweep.model_copy(update={"config": RunConfig(steps=301)})
    with pytest.raises(
        ValueError, match=r"out: the runs in .* have steps 300, not steps 301; choose another"
    ):
        claim_sweep(tmp_path, other, ["pacs"])
    assert json.loads((tmp_path / "sweep.json").read_text()) == document
    (tmp_path / "sweep.json").write_text("[]")
    with pytest.raises(ValueError, match=r"out: .*sweep.json is of another program or version"):
        claim_sweep(tmp_path, sweep, ["pacs"])


@pytest.mark.parametrize(
    ("root", "name"),
    [(".", "here"), ("../here/", "here"), ("sub", "sub"), ("\udcff", "\\xff"), ("/", "image_folder")],
)
def test_a_folder_has_a_name_however_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, name: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    job = Job(tiny_spec(dataset="image_folder"), DataSource("image_folder", Path(root)), tmp_path, CPU)
    assert job.data_name == name


def test_data_of_ones_own_go_by_their_names_in_tables(tmp_path: Path) -> None:
    """Two under one name are told apart by their digests, and a folder from before goes by these alone."""
    out, sweep = tmp_path / "sweep", SweepSpec(algorithms=("erm",), config=RunConfig(steps=2))
    digests = {}
    for place, samples in (("a/[b]é.safetensors", 20), ("c.safetensors", 24), ("d/c.safetensors", 28)):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        dataset = tiny_features(tmp_path / place, samples)
        digests[place] = dataset.fingerprint[:12]
        spec = feature_spec(data=dataset.fingerprint, steps=2)
        job = Job(spec, find_data(str(tmp_path / place)), out, CPU)
        claim_sweep(out, sweep, [place], [job])
        assert str(job).startswith(f"erm on {Path(place).name}, target")
        assert perform_one(job).status == "finished"
    first, *others = digests.values()
    assert set(read_sweep(out).settings) == {
        "data [b]é.safetensors",
        *(f"data c.safetensors {digest}" for digest in others),
    }
    (out / "sweep.json").unlink()
    assert set(read_sweep(out).settings) == {f"data {digest}" for digest in (first, *others)}


@pytest.mark.parametrize(("steps", "every", "count"), [(5001, 300, 18), (5001, 100, 51), (5001, 1000, 6)])
def test_evaluations_are_counted_as_they_are_done(steps: int, every: int, count: int) -> None:
    assert evaluations(tiny_spec(steps=steps, evaluate_every=every)) == count


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (1, 5), (6, 2), (7, 3), (7, 4)])
def test_counted_evaluations_are_the_rule(steps: int, every: int) -> None:
    rule = sum(step % every == 0 or step == steps - 1 for step in range(steps))
    assert evaluations(tiny_spec(steps=steps, evaluate_every=every)) == rule


def test_evaluated_samples_are_limited() -> None:
    assert evaluated_samples(tiny_spec(), [30, 10]) == 40
    assert evaluated_samples(tiny_spec(evaluation_samples=5), [30, 10]) == 5 + 5 + 5 + 2


def test_cost_is_that_of_its_parts() -> None:
    cost = Cost(2.0, 0.5, record_bytes=10, spec_bytes=7, checkpoint_bytes=100, prediction_bytes=3)
    spec = tiny_spec(steps=12, evaluate_every=4)  # 4 evaluations of 60 samples; 2 source domains of 6 samples
    assert cost.seconds(spec, [20, 20, 20]) == 12 * 12 * 2.0 + 4 * 60 * 0.5
    for checkpoint, predictions in product((False, True), repeat=2):
        expected = 4 * (10 + 60 * 3 * predictions) + 7 + 100 * checkpoint
        found = cost.disk_bytes(spec, [20, 20, 20], checkpoint=checkpoint, predictions=predictions)
        assert found == expected


def test_counting_needs_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: object) -> None:
        raise AssertionError("weights were asked for")

    monkeypatch.setattr("hessalign.backbones.pretrained._download", fetch)
    hparams = {"lr": 1e-4, "batch_size": 2}
    backbone = BackboneSpec(name="resnet18", weights="hub")
    spec = tiny_spec(algorithm="erm", backbone=backbone, hparams=hparams)
    assert measure(spec, TinyDomains(samples=6), CPU).image_seconds > 0
    with pytest.raises(AssertionError, match="weights were asked for"):
        make_backbone(backbone, 1)


def test_measuring_runs_the_real_thing_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cost = measure(tiny_spec(), TinyDomains(samples=400), CPU)
    assert cost.image_seconds > 0
    assert cost.record_bytes > 100
    assert cost.checkpoint_bytes > 3 * 4 * 370_000  # mnist_cnn's parameters, and Adam's two moments
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("long_step", "measured"), [(0.0, [2]), (1e9, [2, 5])])
def test_long_steps_are_measured_on_few_images(
    monkeypatch: pytest.MonkeyPatch, long_step: float, measured: list[int]
) -> None:
    """Of the run's own batches only where a step is short; small inputs always are."""
    batches = []

    def note(spec: RunSpec, *rest: Any, **more: Any) -> dict[str, Any]:
        batches.append(spec.hparams["batch_size"])
        return train(spec, *rest, **more)

    monkeypatch.setattr(estimate, "train", note)
    spec = tiny_spec(algorithm="erm", hparams={"lr": 1e-3, "batch_size": 5})
    measure(spec, TinyDomains(), CPU)
    assert batches == [5]
    batches.clear()
    monkeypatch.setattr(estimate, "LARGE_INPUT", 1)
    monkeypatch.setattr(estimate, "LONG_STEP", long_step)
    assert measure(spec, TinyDomains(), CPU).image_seconds > 0
    assert batches == measured


def test_measuring_says_nothing_of_its_random_weights(tmp_path: Path) -> None:
    """What a run would say is an error in the tests."""
    spec = tiny_spec(hparams={"lr": 1e-5, "batch_size": 5, "alpha": 1e9, "beta": 1.0})
    with pytest.warns(UntrustworthyWarning, match="hardly counts beside it"):
        train(spec.model_copy(update={"steps": 1}), TinyDomains(), tmp_path / "run", CPU)
    measure(spec, TinyDomains(), CPU)
