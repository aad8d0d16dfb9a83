"""``hessalign metrics``: what a run's saved predictions are worth, computed again."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hessalign.benchmark.engines import LocalEngine
from hessalign.benchmark.job import Job
from hessalign.benchmark.sweep import perform_all
from hessalign.datasets import find_data
from hessalign.exceptions import NoEffectWarning
from hessalign.training import average_runs, read_predictions, read_records, train
from hessalign.training.machine import Machine
from tests.cli.command import hessalign, words
from tests.training.tiny_features import NAMES, feature_spec, flat, tiny_features

CPU = Machine("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("metrics")
    dataset = tiny_features(place / "f.safetensors")
    train(feature_spec("hgp", seed=1), dataset, place / "run", CPU, save_predictions=True)
    train(feature_spec("hgp"), dataset, place / "without", CPU)
    return place


def document(*arguments: object) -> dict:
    result = hessalign("metrics", *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("split", ["in", "out"])
def test_they_are_the_records_again(folder: Path, split: str) -> None:
    for record in read_records(folder / "run"):
        found = document(folder / "run", "--part", split, "--step", record["step"])
        assert [row["domain"] for row in found["domains"]] == sorted(NAMES)
        for row in found["domains"]:
            assert row["role"] == ("target" if row["domain"] == "west" else "source")
            assert row["accuracy"] == record["accuracies"][row["domain"]][split]
            for name in ("balanced_accuracy", "macro_f1", "auroc", "log_loss", "ece"):
                assert row[name] == pytest.approx(record["metrics"][name][row["domain"]][split], rel=1e-12)
            worst = min(group["accuracy"] for group in found["groups"] if group["domain"] == row["domain"])
            assert worst == record["metrics"]["worst_group_accuracy"][row["domain"]][split]


def test_groups_of_ones_own(folder: Path, tmp_path: Path) -> None:
    table = read_predictions(folder / "run").with_columns(
        (pl.col("sample") % 3).replace_strict({0: "old", 1: "young", 2: "[bold]None"}).alias("group")
    )
    told = table.select("domain", "sample", "group")
    told.cast(pl.String).sample(fraction=1, shuffle=True, seed=0).write_csv(tmp_path / "g.csv")
    told.write_parquet(tmp_path / "g.parquet")
    found = document(folder / "run", "--groups", tmp_path / "g.csv", "--part", "both")
    assert found == document(folder / "run", "--groups", tmp_path / "g.parquet", "--part", "both")
    right = table.with_columns(right=pl.col("target") == pl.col("predicted"))
    expected = dict(right.group_by("group").agg(pl.col("right").mean()).iter_rows())
    assert {row["group"]: row["accuracy"] for row in found["groups"]} == pytest.approx(expected)
    assert found["summary"]["worst_group_accuracy"] == pytest.approx(min(expected.values()))
    shown = hessalign("metrics", folder / "run", "--groups", tmp_path / "g.csv").stdout
    assert "[bold]None" in shown


def test_tables_show_the_worst(folder: Path) -> None:
    shown = hessalign("metrics", folder / "run", "--part", "out", "--format", "markdown").stdout
    found = document(folder / "run", "--part", "out")
    lines = shown.splitlines()
    assert [line.split("|")[1].strip() for line in lines if line.startswith("| ")][2:6] == list(NAMES)
    assert "The worst 10 of 12 groups" in shown
    worst = f"{100 * found['summary']['worst_group_accuracy']:.1f}"
    first = next(line for line in lines if " × " in line)
    assert first.split("|")[3].strip() == worst
    assert hessalign("metrics", folder / "run", "--format", "latex").returncode == 0


def test_a_mean_of_runs_keeps_them_too(folder: Path, tmp_path: Path) -> None:
    dataset = tiny_features(tmp_path / "f.safetensors")
    runs = [folder / "without", tmp_path / "longer"]
    train(feature_spec("hgp", steps=20), dataset, runs[1], CPU)
    record, _ = average_runs(runs, tmp_path / "mean", lambda _: dataset, CPU, save_predictions=True)
    found = document(tmp_path / "mean")
    assert {row["domain"]: row["accuracy"] for row in found["domains"]} == {
        name: splits["in"] for name, splits in record["accuracies"].items()
    }


def groups(table: pl.DataFrame, path: Path) -> Path:
    table.write_csv(path)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda told: told.head(-3), "gives no group to 3 of 128 samples, such as domain 'west', sample '"),
        (
            lambda told: told.drop("sample"),
            "has the columns 'domain', 'group'; needed are 'group', and 'file'",
        ),
        (
            lambda told: pl.concat([told, told.head(1).with_columns(group=pl.lit("b"))]),
            "gives more than one group to domain 'north', sample '",
        ),
        (
            lambda told: told.rename({"sample": "file"}).drop("domain"),
            "names files, but the samples have none; give 'domain' and 'sample'",
        ),
    ],
)
def test_a_table_of_groups_that_tells_too_little_is_refused(
    folder: Path, tmp_path: Path, make, message: str
) -> None:
    table = read_predictions(folder / "run").filter(split="in")
    told = table.select("domain", "sample", pl.lit("a").alias("group")).cast(pl.String)
    path = groups(make(told), tmp_path / "g.csv")
    result = hessalign("metrics", folder / "run", "--groups", path)
    assert result.returncode == 2
    assert f"groups: {path} {message}" in words(result.stderr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["without"], "kept no predictions; train it again with --save-predictions"),
        (["run", "--step", "3"], "step: the run in"),
        (["nothing"], "run: there is no file or folder"),
        (["run", "--groups", "f.safetensors"], "groups: must be a table (.csv, .parquet), got"),
    ],
)
def test_what_is_not_there_is_said(folder: Path, arguments: list[str], message: str) -> None:
    places = {"run", "without", "nothing", "f.safetensors"}
    given = [folder / word if word in places else word for word in arguments]
    result = hessalign("metrics", *given)
    assert result.returncode == 2
    assert message in words(result.stderr)


def test_train_and_sweep_save_them(tmp_path: Path) -> None:
    features = tmp_path / "f.safetensors"
    tiny_features(features)
    short = ["--steps", "4", "--evaluate-every", "2", "--set", "batch_size=8", "--device", "cpu"]
    short.append("--save-predictions")
    run = tmp_path / "run"
    arguments = ["train", "--dataset", features, "--algorithm", "erm", "--target", "west", *short]
    assert hessalign(*arguments, "--out", run).returncode == 0
    assert len(document(run)["domains"]) == 4
    grid = [
        "--algorithms",
        "erm,mldg",
        "--trials",
        "1",
        "--hparams",
        "1",
        "--targets",
        "singles",
        "--jobs",
        "1",
    ]
    grid.append("--keep-checkpoints")
    sweep = ["sweep", "--datasets", features, *short, *grid, "--out", tmp_path / "sweep"]
    estimate = json.loads(hessalign(*sweep, "--dry-run", "--json").stdout)
    result = hessalign(*sweep)
    assert result.returncode == 0, result.stderr
    runs = sorted((tmp_path / "sweep" / "runs").iterdir())
    assert len(runs) == 8
    kept = [path.stat().st_size for path in (tmp_path / "sweep").glob("runs/*/predictions/*.parquet")]
    assert len(kept) == 8 * 3
    assert sum(row["disk_bytes"] for row in estimate["rows"]) > 8 * 3 * 160 * 4 * 3
    for folder in runs:
        last = read_records(folder)[-1]
        for split in ("in", "out"):
            numbers = document(folder, "--part", split)
            for row in numbers["domains"]:
                recorded = flat(last["metrics"])["log_loss", row["domain"], split]
                assert np.isclose(row["log_loss"], recorded, rtol=1e-9)


def test_a_sweep_that_was_done_without_says_so(tmp_path: Path) -> None:
    features = tmp_path / "f.safetensors"
    dataset, source = tiny_features(features), find_data(str(features))
    specs = [feature_spec(data=dataset.fingerprint, seed=seed) for seed in (0, 1)]
    jobs = [
        Job(spec, source, tmp_path / "sweep", CPU, keep_checkpoint=True, save_predictions=True)
        for spec in specs
    ]
    for job in jobs:
        train(job.spec, dataset, job.folder, CPU, keep_checkpoint=False)
    with closing(LocalEngine(1, 1, 0, ())) as engine, pytest.warns(NoEffectWarning) as heard:
        outcomes = [*perform_all(jobs, engine, 1)]
    assert [outcome.status for outcome in outcomes] == ["skipped", "skipped"]
    for name, warned in zip(("keep_checkpoints", "save_predictions"), heard, strict=True):
        assert f"{name}: 2 runs of the sweep were done before without" in str(warned.message)
