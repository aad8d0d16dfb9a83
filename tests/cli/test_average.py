"""``hessalign train`` with a recipe, ``hessalign average``, and their rows in tables."""

import json
from pathlib import Path

import pytest

from hessalign.cli.options import parse_settings
from hessalign.training import load_trained
from tests.cli.command import hessalign, words
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
        (("--average", "sma", "--swad-ratio", "1.2"), "--swad-ratio: belongs to average 'swad', and"),
        (("--rho", "0.1"), "--rho: belongs to sharpness 'sam' or 'disam', and no sharpness is chosen"),
        (("--average-from", "100"), "--average-from: belongs to average 'sma', and no average is chosen"),
        (("--linear-probe-steps", "2"), "--linear-probe-steps: the backbone has nothing to train"),
        (("--start-from", "nowhere"), "--start-from: there is no file or folder nowhere"),
    ],
)
def test_what_has_no_sense_is_refused(features: Path, tmp_path: Path, options: tuple, sentence: str) -> None:
    result = train(features, tmp_path / "out", *options)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert not (tmp_path / "out" / "spec.json").exists()


def test_a_probe_of_all_steps_is_told(features: Path, tmp_path: Path) -> None:
    adapter = ("--backbone", "adapter:linear", "--rank", 2)
    said = {}
    for steps in (6, 7):
        made = train(features, tmp_path / str(steps), *adapter, "--linear-probe-steps", steps)
        assert made.returncode == 0, made.stderr
        said[steps] = (
            "the head alone was trained" in words(made.stdout),
            "--linear-probe-steps: 7 of" in made.stderr,
        )
    assert said == {6: (True, False), 7: (True, True)}


def test_what_was_done_before_is_told_to_be(features: Path, tmp_path: Path) -> None:
    said = [train(features, tmp_path / "run") for _ in range(2)]
    assert [result.returncode for result in said] == [0, 0]
    assert ["was done before: nothing was trained" in result.stderr for result in said] == [False, True]
    assert said[0].stdout == said[1].stdout
    longer = train(features, tmp_path / "run", "--resume", "--steps", 7)
    assert "done before" not in longer.stderr


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("lr=1", "lr=2"), "Invalid value for --set: 'lr' has two values, '1' and '2'; give one"),
        (("lr",), "Invalid value for --set: 'lr' is not of the form NAME=VALUE"),
    ],
)
def test_a_hyper_parameter_has_one_value(
    features: Path, tmp_path: Path, given: tuple[str, ...], told: str
) -> None:
    options = [word for setting in given for word in ("--set", setting)]
    for command in (
        ("train", "--dataset", features, "--target", "west", "--algorithm", "erm"),
        ("sweep", "--datasets", features, "--algorithms", "erm"),
    ):
        refused = hessalign(*command, *options, "--out", tmp_path / "out")
        assert refused.returncode == 2
        assert told in words(refused.stderr)
    assert parse_settings(["lr=1", "lr=1", "a=b=c"]) == {"lr": "1", "a": "b=c"}
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_kind_is_named_as_what_it_is(features: Path, tmp_path: Path) -> None:
    swept, run, new = tmp_path / "swept", tmp_path / "run", tmp_path / "new"
    swept.mkdir()
    (swept / "sweep.json").write_text("{}")
    run.mkdir()
    (run / "spec.json").write_text("{}")
    of_a_sweep = f"; it is the folder of a sweep, and the folders of its runs lie in {swept / 'runs'}"
    sweep = ("sweep", "--datasets", features, "--algorithms", "erm", *SHORT, "--hparams", 1, "--trials", 1)
    for line, told in (
        (("train", "--resume", "--out", new), f"--resume: there is no run in {new}; for a new one dataset"),
        (("train", "--resume", "--out", swept), f"--resume: there is no run in {swept}{of_a_sweep}"),
        (
            ("train", "--spec", swept, "--out", new),
            f"--spec: there is no file {swept / 'spec.json'}{of_a_sweep}",
        ),
        (("average", swept, run, "--out", new), f"folders: there is no run in {swept}{of_a_sweep}"),
        ((*sweep, "--out", run), f"--out: {run} is the folder of a single run"),
    ):
        refused = hessalign(*line)
        assert refused.returncode == 2, refused.stderr
        assert told in words(refused.stderr)
    refused = train(features, swept)
    assert refused.returncode == 2
    assert f"--out: {swept} is the folder of a sweep; a run needs a folder of its own" in words(
        refused.stderr
    )
    refused = train(features, new, "--start-from", swept)
    assert f"--start-from: {swept} is the folder of a sweep; give one of the runs" in words(refused.stderr)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "swept"]
    assert [path.name for folder in (run, swept) for path in folder.iterdir()] == ["spec.json", "sweep.json"]


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
