"""Recorded and exported runs are run again, exactly; what contradicts them is refused."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from hessalign.benchmark.best import best_runs
from hessalign.benchmark.readers import read_sweep
from hessalign.exceptions import UntrustworthyWarning
from hessalign.training import (
    Machine,
    RunSpec,
    latest_checkpoint,
    open_recorded,
    read_records,
    train,
    train_together,
)
from hessalign.training.rerun import read_specs
from tests.cli.command import hessalign, words
from tests.training.tiny_features import feature_spec, tiny_features

CPU = Machine("cpu")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "f.safetensors"
    tiny_features(path)
    return path


@pytest.fixture(scope="module")
def data(features: Path) -> str:
    return tiny_features(features).fingerprint


def specs_of(data: str) -> list[RunSpec]:
    """Two algorithms with two targets; what no option tells is not at its default."""
    return [
        feature_spec(
            algorithm,
            {"lr": 0.02},
            data=data,
            target_domains=(target,),
            hparams_seed=2,
            seed=target + 7,
            trial_seed=1,
            holdout_fraction=0.3,
            steps=6,
        )
        for algorithm in ("hgp", "mixup")
        for target in (0, 3)
    ]


@pytest.fixture(scope="module")
def sweep(features: Path, data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a sweep leaves it; the runs of hgp were trained together."""
    out = tmp_path_factory.mktemp("sweep")
    specs = specs_of(data)
    folders = [out / "runs" / spec.identity() for spec in specs]
    dataset = tiny_features(features)
    train_together(specs[:2], dataset, folders[:2], CPU)
    for spec, folder in zip(specs[2:], folders[2:], strict=True):
        train(spec, dataset, folder, CPU)
    return out


@pytest.fixture(scope="module")
def exported(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "best.json"
    best = best_runs(read_sweep(sweep), ["source-validation", "oracle"], sweep)
    path.write_text(best.model_dump_json())
    return path


def again(*arguments: object) -> str:
    result = hessalign("train", *arguments, "--accelerator", "cpu")
    assert result.returncode == 0, result.stderr
    return words(result.stderr)


def refused(*arguments: object) -> str:
    result = hessalign("train", *arguments, "--accelerator", "cpu")
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    return words(result.stderr)


def outcome(folder: Path) -> tuple[bytes, list[dict], dict]:
    records = [{**record, "step_seconds": 0} for record in read_records(folder)]
    checkpoint = latest_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    weights = {name: value.tolist() for name, value in load_file(checkpoint / "model.safetensors").items()}
    return (folder / "spec.json").read_bytes(), records, weights


@pytest.mark.parametrize("given", ["file", "folder", "checkpoint", "export"])
def test_a_run_is_run_again_to_the_last_bit(
    features: Path, data: str, sweep: Path, exported: Path, tmp_path: Path, given: str
) -> None:
    spec = specs_of(data)[2]
    run = sweep / "runs" / spec.identity()
    checkpoint = latest_checkpoint(run / "checkpoints")
    path = {"file": run / "spec.json", "folder": run, "checkpoint": checkpoint, "export": exported}[given]
    choice = ["--algorithm", "mixup", "--target", "north"] if given == "export" else []
    again("--spec", path, "--dataset", features, *choice, "--out", tmp_path / "again")
    assert outcome(tmp_path / "again") == outcome(run)


def test_a_run_of_many_is_run_again_alone_and_says_so(
    features: Path, data: str, sweep: Path, tmp_path: Path
) -> None:
    run = sweep / "runs" / specs_of(data)[0].identity()
    errors = again("--spec", run, "--dataset", features, "--out", tmp_path / "again")
    assert "was trained together with 1 other; alone, its sums are taken in another order" in errors
    for ours, theirs in zip(read_records(tmp_path / "again"), read_records(run), strict=True):
        assert ours["accuracies"] == theirs["accuracies"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)


def test_a_run_is_lengthened_without_being_told_again(features: Path, data: str, tmp_path: Path) -> None:
    spec, run = specs_of(data)[3], tmp_path / "run"
    dataset = tiny_features(features)
    train(spec.with_steps(9), dataset, tmp_path / "whole", CPU)
    train(spec, dataset, run, CPU)
    short = outcome(run)
    fewer = refused("--resume", "--dataset", features, "--steps", 4, "--out", run)
    assert "steps: 4 contradicts the spec in" in fewer
    assert "which has 6; a run can be lengthened with --resume, but not shortened" in fewer
    unasked = refused("--spec", run, "--dataset", features, "--steps", 9, "--out", run)
    assert "steps: 9 contradicts the spec in" in unasked
    assert outcome(run) == short
    again("--resume", "--dataset", features, "--steps", 9, "--out", run)
    assert outcome(run) == outcome(tmp_path / "whole")


CONTRADICTIONS = [
    (["--algorithm", "erm"], "algorithm: 'erm' contradicts the spec in"),
    (["--target", "south"], "target: 'south' contradicts the spec in"),
    (["--target", "0,1"], "target: '0,1' contradicts the spec in"),
    (["--target", "nowhere"], "target: 'nowhere' is not a domain; allowed are north, south"),
    (["--backbone", "adapter:linear"], "which has identity; leave it out, or choose another spec"),
    (["--rank", "4"], "rank: 4 contradicts"),
    (["--weights", "hub"], "weights: 'hub' contradicts the spec in"),
    (["--normalization", "weights"], "normalization: 'weights' contradicts"),
    (["--set", "lr=0.03"], "--set: lr=0.03 contradicts"),
    (["--set", "wrong=1"], "wrong: Extra inputs are not permitted"),
    (["--steps", "7"], "steps: 7 contradicts the spec in"),
    (["--evaluate-every", "2"], "--evaluate-every: 2 contradicts"),
    (["--evaluate-samples", "2"], "--evaluate-samples: 2 contradicts"),
    (["--seed", "0"], "seed: 0 contradicts"),
    (["--trial-seed", "0"], "--trial-seed: 0 contradicts"),
]


@pytest.mark.parametrize(("options", "problem"), CONTRADICTIONS, ids=lambda value: str(value)[:30])
def test_what_contradicts_a_spec_is_refused(
    features: Path, data: str, sweep: Path, tmp_path: Path, options: list[str], problem: str
) -> None:
    run = sweep / "runs" / specs_of(data)[2].identity()
    arguments = ["--spec", run, "--dataset", features, *options, "--out", tmp_path / "new"]
    assert problem in refused(*arguments)
    assert not (tmp_path / "new").exists()


def test_what_agrees_with_a_spec_may_be_said(features: Path, data: str, sweep: Path, tmp_path: Path) -> None:
    spec = specs_of(data)[2]
    said = {"algorithm": "mixup", "target": "north", "backbone": "identity", "weights": "none", "seed": 7}
    said |= {"settings": {"lr": "0.02", "batch_size": "8"}, "steps": 6}
    found, _ = open_recorded(sweep / "runs" / spec.identity(), said, str(features), None)
    assert found == spec


def test_several_runs_are_told_apart(features: Path, exported: Path) -> None:
    assert len(read_specs(exported)) == 4
    with pytest.raises(ValueError, match=r"4 runs .* \(algorithm: hgp, mixup; target: 0, 3; seed: 7, 10"):
        open_recorded(exported, {}, str(features), None)
    with pytest.raises(ValueError, match=r"tells of 2 runs .* \(algorithm: hgp, mixup\)"):
        open_recorded(exported, {"target": "west"}, str(features), None)
    spec, _ = open_recorded(exported, {"target": "3", "algorithm": "mixup"}, str(features), None)
    assert (spec.algorithm, spec.target_domains) == ("mixup", (3,))


def test_exports_of_former_versions_are_read(data: str, tmp_path: Path) -> None:
    spec = specs_of(data)[0]
    entry = {
        "program": "hessalign",
        "configuration": spec.model_dump(mode="json"),
        "command": "hessalign train",
    }
    other = {"program": "DomainBed", "configuration": {"args": {}, "hparams": {}}, "command": None}
    (tmp_path / "best.json").write_text(json.dumps({"runs": [entry, other, entry]}))
    assert read_specs(tmp_path / "best.json") == [spec]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "spec: there is no file"),
        ("{", "is not JSON"),
        ("[1]", "tells of no run that can be done again"),
        ("{}", r"tells of no run that can be done again \(dataset: Field required"),
        ('{"runs": []}', "the runs in .* are none"),
        (
            '{"runs": [{"program": "DomainBed"}]}',
            "are DomainBed's, whose configuration is no spec of hessalign",
        ),
        ('{"method": "hgp", "hidden": 390}', "tells of no run that can be done again"),
    ],
)
def test_what_is_no_spec_says_so(tmp_path: Path, content: str | None, problem: str) -> None:
    if content is not None:
        (tmp_path / "spec.json").write_text(content)
    with pytest.raises(ValueError, match=problem):
        open_recorded(tmp_path / "spec.json", {}, None, None)


def test_a_field_of_a_later_version_is_no_guess(data: str, tmp_path: Path) -> None:
    fields = {**specs_of(data)[0].model_dump(mode="json"), "sharpness": "sam"}
    (tmp_path / "spec.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"\(sharpness: Extra inputs are not permitted\)"):
        read_specs(tmp_path / "spec.json")


def test_the_data_must_be_those_of_the_run(features: Path, data: str, tmp_path: Path) -> None:
    path, spec = tmp_path / "spec.json", specs_of(data)[0]
    path.write_text(spec.model_dump_json())
    with pytest.raises(ValueError, match=r"dataset: the run in .* is of data of your own \(features_file\)"):
        open_recorded(path, {}, None, None)
    with pytest.raises(ValueError, match=r"dataset: 'colored_mnist' contradicts .* which has features_file"):
        open_recorded(path, {}, "colored_mnist", None)
    tiny_features(tmp_path / "other.safetensors", samples=41)
    with pytest.raises(ValueError, match=r"other.safetensors are not those of the run \(fingerprint"):
        open_recorded(path, {}, str(tmp_path / "other.safetensors"), None)
    path.write_text(spec.model_copy(update={"data": ""}).model_dump_json())
    with pytest.warns(UntrustworthyWarning, match="the spec does not tell which data the run had"):
        open_recorded(path, {}, str(features), None)


def test_a_spec_that_was_changed_is_refused(features: Path, data: str, tmp_path: Path) -> None:
    train(specs_of(data)[0], tiny_features(features), tmp_path / "run", CPU)
    path = tmp_path / "run" / "spec.json"
    path.write_text(path.read_text().replace('"seed": 7', '"seed": 8'))
    with pytest.raises(ValueError, match=r"spec.json is damaged"):
        open_recorded(tmp_path / "run", {}, str(features), None)


@pytest.mark.parametrize("missing", ["--dataset", "--algorithm", "--target"])
def test_a_run_must_be_told_by_something(features: Path, tmp_path: Path, missing: str) -> None:
    told = {"--dataset": str(features), "--algorithm": "erm", "--target": "0"}
    del told[missing]
    options = [word for pair in told.items() for word in pair]
    message = refused(*options, "--out", tmp_path / "new")
    assert f"{missing}: is missing; --dataset, --algorithm and --target tell a new run" in message
    message = refused(*options, "--resume", "--out", tmp_path / "new")
    assert (
        f"--resume: there is no run in {tmp_path / 'new'}; for a new one {missing[2:]} is missing" in message
    )
    assert not (tmp_path / "new").exists()
