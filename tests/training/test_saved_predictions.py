"""Predictions that a run keeps: against its records, through kills, longer runs and damage."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from hessalign.datasets.features_file import FeaturesFile
from hessalign.exceptions import DivergedError, NoEffectWarning
from hessalign.metrics import measure_split
from hessalign.training import (
    Machine,
    Progress,
    RunSpec,
    load_trained,
    read_predictions,
    read_records,
    train,
    train_together,
)
from tests.training.tiny_domains import TinyDomains, tiny_spec
from tests.training.tiny_features import feature_spec, tiny_features

CPU = Machine("cpu")
COLUMNS = ["domain", "split", "sample", "file", "target", "predicted", "logits"]


@pytest.fixture
def dataset(tmp_path: Path) -> FeaturesFile:
    return tiny_features(tmp_path / "f.safetensors")


def files(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "predictions").iterdir())


def keeping(spec: RunSpec, dataset: FeaturesFile, folder: Path) -> None:
    train(spec, dataset, folder, CPU, save_predictions=True)


def in_company(spec: RunSpec, dataset: FeaturesFile, folder: Path) -> None:
    other = spec.model_copy(update={"seed": 5})
    folders = [folder.with_name("other"), folder]
    train_together([other, spec], dataset, folders, CPU, save_predictions=True)


@pytest.mark.parametrize("perform", [keeping, in_company])
def test_they_are_what_the_records_were_measured_on(tmp_path: Path, dataset: FeaturesFile, perform) -> None:
    run = tmp_path / "run"
    perform(feature_spec("hgp", evaluation_samples=20), dataset, run)
    records = read_records(run)
    assert files(run) == [f"step-{record['step']:06d}.parquet" for record in records]
    for record in records:
        table = read_predictions(run, record["step"])
        assert table.columns == COLUMNS
        assert table["domain"].unique(maintain_order=True).to_list() == list(record["accuracies"])
        assert tuple(table["target"].dtype.categories) == dataset.class_names
        for domain in dataset.domains:
            for split in ("in", "out"):
                part = table.filter(domain=domain.name, split=split)
                assert 0 < len(part) <= 20
                classes, logits = part["target"].to_physical().to_numpy(), part["logits"].to_numpy()
                assert (domain.targets.numpy()[part["sample"]] == classes).all()
                assert (part["predicted"].to_physical().to_numpy() == logits.argmax(1)).all()
                found = measure_split(classes, logits)
                assert found.pop("accuracy") == record["accuracies"][domain.name][split]
                assert found == pytest.approx(
                    {name: record["metrics"].get(name, {}).get(domain.name, {}).get(split) for name in found}
                    | {name: value for name, value in found.items() if np.isnan(value)},
                    rel=1e-12,
                    nan_ok=True,
                )
    assert read_predictions(run).equals(table)


def test_they_are_the_networks(tmp_path: Path, dataset: FeaturesFile) -> None:
    keeping(feature_spec("hgp"), dataset, tmp_path / "run")
    algorithm, _ = load_trained(tmp_path / "run")
    for domain in dataset.domains:
        part = read_predictions(tmp_path / "run").filter(domain=domain.name)
        assert sorted(part["sample"]) == list(range(len(domain)))
        inputs = torch.stack([domain.plain[sample][0] for sample in part["sample"]])
        np.testing.assert_allclose(
            part["logits"].to_numpy(), algorithm(inputs).detach(), rtol=1e-5, atol=1e-6
        )


def test_a_run_that_is_stopped_goes_on_keeping_them(tmp_path: Path) -> None:
    spec = tiny_spec(steps=9, evaluate_every=2)
    train(spec, TinyDomains(), tmp_path / "whole", CPU, save_predictions=True)

    def stop(progress: Progress) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(spec, TinyDomains(), tmp_path / "parts", CPU, stop, save_predictions=True)
    left = tmp_path / "parts" / "predictions" / "step-000006.parquet"
    left.write_bytes(b"of an evaluation that was killed before its record")
    (left.parent / ".step-000006.parquet.12.draft").touch()
    train(spec, TinyDomains(), tmp_path / "parts", CPU)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    for name in files(tmp_path / "whole"):
        whole, parts = (tmp_path / folder / "predictions" / name for folder in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes()


@pytest.mark.parametrize("first", [keeping, in_company])
def test_a_longer_run_keeps_those_of_its_evaluations(tmp_path: Path, dataset: FeaturesFile, first) -> None:
    spec = feature_spec("erm", steps=8, evaluate_every=3)
    first(spec.with_steps(5), dataset, tmp_path / "run")
    assert files(tmp_path / "run") == [f"step-{step:06d}.parquet" for step in (0, 3, 4)]
    if first is in_company:
        with pytest.warns(match="goes on alone"):
            train(spec, dataset, tmp_path / "run", CPU)
    else:
        train(spec, dataset, tmp_path / "run", CPU)
    assert files(tmp_path / "run") == [f"step-{step:06d}.parquet" for step in (0, 3, 6, 7)]
    assert len(read_predictions(tmp_path / "run", 3)) == sum(map(len, dataset.domains))


def test_a_mean_that_predicts_is_kept(tmp_path: Path, dataset: FeaturesFile) -> None:
    spec = feature_spec("erm", recipe={"average": "sma", "average_from": 2})
    record = train(spec, dataset, tmp_path / "run", CPU, save_predictions=True)
    part = read_predictions(tmp_path / "run").filter(domain="west", split="in")
    assert (part["target"] == part["predicted"]).mean() == record["accuracies"]["west"]["in"]


@pytest.mark.parametrize("together", [False, True])
def test_what_diverged_leaves_none(tmp_path: Path, dataset: FeaturesFile, together: bool) -> None:
    spec = feature_spec("irm", {"lr": 1e30, "anneal_steps": 2}, steps=6, evaluate_every=2)
    run = tmp_path / "run"
    if together:
        in_company(spec, dataset, run)
    else:
        with pytest.raises(DivergedError):
            keeping(spec, dataset, run)
    records = read_records(run)
    assert "diverged" in records[-1]
    assert files(run) == [f"step-{record['step']:06d}.parquet" for record in records[:-1]]
    with pytest.raises(ValueError, match=r"^step: the run in .* had diverged at step 2: "):
        read_predictions(run)


def test_what_cannot_be_read_is_said(tmp_path: Path, dataset: FeaturesFile) -> None:
    run, without = tmp_path / "run", tmp_path / "without"
    keeping(feature_spec(), dataset, run)
    train(feature_spec(), dataset, without, CPU)
    path = run / "predictions" / "step-000011.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    (run / "predictions" / "step-000005.parquet").unlink()
    for folder, step, words in (
        (tmp_path / "nothing", None, r"folder: there is no run in .*nothing"),
        (without, None, r"folder: the run in .*without kept no predictions; train it again with --save-pred"),
        (run, 7, r"step: the run in .* was evaluated at steps 0, 5, 10, 11, got 7"),
        (run, None, r".*step-000011.parquet is damaged: its SHA-256 is not what the run noted; remove"),
        (run, 5, r".*step-000005.parquet is missing; remove .* to do the run again"),
    ):
        with pytest.raises(ValueError, match=rf"^{words}"):
            read_predictions(folder, step)
    assert len(read_predictions(run, 0)) == 160


@pytest.mark.parametrize("together", [False, True])
def test_a_run_that_was_done_without_says_so(tmp_path: Path, dataset: FeaturesFile, together: bool) -> None:
    train(feature_spec(), dataset, tmp_path / "run", CPU)
    with pytest.warns(NoEffectWarning, match=r"save_predictions: the run in .*run was done before without"):
        (in_company if together else keeping)(feature_spec(), dataset, tmp_path / "run")
    assert not (tmp_path / "run" / "predictions").exists()


def test_a_disk_that_cannot_be_written_ends_the_run(tmp_path: Path, dataset: FeaturesFile) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "predictions").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="predictions"):
        keeping(feature_spec(), dataset, run)
    (run / "predictions").unlink()
    keeping(feature_spec(), dataset, run)
    assert len(files(run)) == 4


def test_files_of_samples_are_named(tmp_path: Path) -> None:
    class Named(TinyDomains):
        def __init__(self) -> None:
            super().__init__()
            for domain in self.domains:
                domain.plain.file_of = lambda index, name=domain.name: f"{name}/{index}.png"

    train(tiny_spec(steps=1), Named(), tmp_path / "run", CPU, save_predictions=True)
    table = read_predictions(tmp_path / "run")
    told = pl.Series([f"{row['domain']}/{row['sample']}.png" for row in table.iter_rows(named=True)])
    assert (table["file"] == told).all()


def test_other_data_frames_read_them(tmp_path: Path, dataset: FeaturesFile) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    keeping(feature_spec(), dataset, tmp_path / "run")
    frame = pandas.read_parquet(tmp_path / "run" / "predictions" / "step-000011.parquet")
    assert list(frame.columns) == COLUMNS
    assert list(frame["target"].cat.categories) == list(dataset.class_names)
    ours: Sequence = read_predictions(tmp_path / "run")["logits"].to_numpy()
    np.testing.assert_array_equal(np.stack(frame["logits"]), ours)
