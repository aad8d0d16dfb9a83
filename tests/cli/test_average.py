"""``hessalign train`` with a recipe, ``hessalign average``, and their rows in tables."""

import json
from pathlib import Path

import pytest

from hessalign.training import load_trained
from tests.cli.command import hessalign
from tests.training.tiny_features import tiny_features

SHORT = ("--steps", "6", "--evaluate-every", "2", "--set", "batch_size=8", "--device", "cpu")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "tiny.safetensors"
    tiny_features(path)
    return path


def train(features: Path, out: Path, *more: object):
    fields = ("--dataset", features, "--target", "west", "--algorithm", "erm", *SHORT)
    return hessalign("train", *fields, "--out", out, *more)


def test_a_recipe_is_trained_recorded_repeated_lengthened_and_has_a_row(
    features: Path, tmp_path: Path
) -> None:
    sma = ("--average", "sma", "--average-from", 2, "--sharpness", "disam", "--head-lr-factor", 2)
    made = train(features, tmp_path / "runs" / "sma", *sma, "--json")
    assert made.returncode == 0, made.stderr
    assert train(features, tmp_path / "runs" / "plain").returncode == 0
    recipe = json.loads((tmp_path / "runs" / "sma" / "spec.json").read_text())["recipe"]
    assert (recipe["average"], recipe["average_from"], recipe["sharpness"]) == ("sma", 2, "disam")
    assert "recipe" not in json.loads((tmp_path / "runs" / "plain" / "spec.json").read_text())
    repeat = ("train", "--spec", tmp_path / "runs" / "sma", "--dataset", features, "--device", "cpu")
    again = hessalign(*repeat, "--average", "sma", "--out", tmp_path / "again", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["accuracies"] == json.loads(made.stdout)["accuracies"]
    other = hessalign(
        "train",
        "--spec",
        tmp_path / "runs" / "sma",
        "--dataset",
        features,
        "--average",
        "swad",
        "--out",
        tmp_path / "x",
    )
    assert other.returncode == 2
    assert "average: 'swad' contradicts the spec" in other.stderr
    longer = hessalign(
        "train",
        "--resume",
        "--dataset",
        features,
        "--steps",
        9,
        "--device",
        "cpu",
        "--out",
        tmp_path / "again",
    )
    assert longer.returncode == 0, longer.stderr
    table = hessalign("collect", tmp_path / "runs")
    assert table.returncode == 0, table.stderr
    assert "ERM + head lr x2 + DISAM + SMA from 2" in table.stdout
    inspected = hessalign("inspect", tmp_path / "runs" / "sma", "--dataset", features)
    assert inspected.returncode == 0, inspected.stderr


def test_runs_are_averaged_into_one_that_inspect_and_collect_know(features: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert train(features, tmp_path / "start").returncode == 0
    for seed in (1, 2):
        made = train(features, runs / str(seed), "--seed", seed, "--start-from", tmp_path / "start")
        assert made.returncode == 0, made.stderr
    asked = (
        "average",
        runs / "1",
        runs / "2",
        "--dataset",
        features,
        "--device",
        "cpu",
        "--out",
        runs / "mean",
    )
    made = hessalign(*asked, "--json")
    assert made.returncode == 0, made.stderr
    members = json.loads(made.stdout)["members"]
    assert [each["run"] for each in members] == [load_trained(runs / n)[1].run.identity() for n in ("1", "2")]
    assert hessalign("inspect", runs / "mean", "--dataset", features).returncode == 0
    table = hessalign("collect", runs)
    assert "ERM + DiWA uniform 2" in table.stdout, table.stderr
    again = hessalign(*asked)
    assert again.returncode == 2
    assert "is not empty" in again.stderr
    lengthened = hessalign("train", "--resume", "--dataset", features, "--steps", 9, "--out", runs / "mean")
    assert lengthened.returncode == 2
    assert "a mean of trained runs" in lengthened.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--average", "ema"), "average: "),
        (("--sharpness", "asam"), "sharpness: "),
        (("--average", "sma", "--swad-ratio", "1.2"), "swad_ratio: belongs to average 'swad'"),
        (("--rho", "0.1"), "rho: belongs to sharpness"),
        (("--linear-probe-steps", "2"), "linear_probe_steps: the backbone has nothing to train"),
        (("--start-from", "nowhere"), "start_from: there is no file or folder nowhere"),
    ],
)
def test_what_has_no_sense_is_refused(features: Path, tmp_path: Path, options: tuple, sentence: str) -> None:
    result = train(features, tmp_path / "out", *options)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert not (tmp_path / "out" / "spec.json").exists()


@pytest.mark.slow
def test_sweeps_with_and_without_a_recipe_share_a_folder_and_a_table(features: Path, tmp_path: Path) -> None:
    grid = ("sweep", "--datasets", features, *SHORT, "--trials", 1, "--hparams", 1, "--targets", "singles")
    for recipe in (("--average", "sma", "--average-from", 3), ()):
        swept = hessalign(*grid, "--algorithms", "erm", *recipe, "--jobs", 1, "--out", tmp_path)
        assert swept.returncode == 0, swept.stderr
    table = hessalign("collect", tmp_path).stdout
    assert "ERM + SMA from 3" in table
    assert "ERM  " in table


def test_a_sweep_refuses_what_does_not_go_with_one_of_its_algorithms(features: Path, tmp_path: Path) -> None:
    grid = ("sweep", "--datasets", features, *SHORT, "--trials", 1, "--hparams", 1, "--targets", "singles")
    refused = hessalign(*grid, "--algorithms", "erm,mldg", "--sharpness", "sam", "--out", tmp_path / "o")
    assert refused.returncode == 2
    assert "sharpness: mldg has a step of its own" in refused.stderr
    assert not (tmp_path / "o").exists()
