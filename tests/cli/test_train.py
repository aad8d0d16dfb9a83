"""``hessalign train`` and ``hessalign predict`` on images that the test draws."""

import csv
import json
from pathlib import Path

import pytest

from tests.cli.command import hessalign, words
from tests.cli.small_images import CLASSES, DOMAINS, IMAGES, draw_images

RUN = [
    "--algorithm",
    "coral",
    "--target",
    "vivid",
    "--backbone",
    "timm:test_efficientnet",
    "--weights",
    "none",
]
SHORT = [*RUN, "--set", "batch_size=3", "--steps", "3", "--evaluate-every", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "coral"
    result = hessalign("train", "--dataset", str(folder), *SHORT, "--out", str(out))
    assert result.returncode == 0, result.stderr
    assert "coral on" in result.stdout
    assert "vivid" in result.stdout
    return out


def test_a_folder_of_ones_own_is_trained_on(folder: Path, run: Path) -> None:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [0, 2]
    assert {"loss", "risk", "penalty", "step_seconds"} <= records[0].keys()
    assert list(records[0]["accuracies"]) == list(DOMAINS)
    spec = json.loads((run / "spec.json").read_text())
    assert spec["target_domains"] == [2]
    assert spec["backbone"]["frozen_batch_norm"] is False
    again = hessalign("train", "--dataset", str(folder), *SHORT, "--out", str(run), "--json")
    assert json.loads(again.stdout) == records[-1]


def test_a_csv_of_ones_own_gives_the_same_run(folder: Path, tmp_path: Path) -> None:
    table = folder / "table.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "domain"))
        for path in sorted(folder.glob("*/*/*.png")):
            domain, name, _ = path.relative_to(folder).parts
            writer.writerow((path.relative_to(folder), name, domain))
    arguments = ["train", *SHORT, "--json", "--dataset", str(table), "--out", str(tmp_path / "csv")]
    result = hessalign(*arguments)
    table.unlink()
    assert result.returncode == 0, result.stderr
    assert list(json.loads(result.stdout)["accuracies"]) == list(DOMAINS)


def test_predictions_are_those_of_the_trained_model(folder: Path, run: Path) -> None:
    result = hessalign("predict", str(run), str(folder / "vivid"), str(folder / "dim" / "red" / "0.png"))
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert len(rows) == 2 * IMAGES + 1
    assert rows[-1]["path"].endswith("dim/red/0.png")
    assert all(row["class"] in CLASSES and 0.5 <= float(row["probability"]) <= 1 for row in rows)
    as_json = json.loads(hessalign("predict", str(run), str(folder / "vivid"), "--json").stdout)
    assert [row["class_name"] for row in as_json] == [row["class"] for row in rows[:-1]]
    right = sum(Path(row["path"]).parent.name == row["class"] for row in rows[:-1])
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["accuracies"]["vivid"]
    inside, outside = 13, 3  # int(0.2 · 16) images are held out
    assert right == round(inside * last["in"] + outside * last["out"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--set", "alpah=1"], "set: 'alpah' is no hyper-parameter of coral; allowed are lr, weight_decay"),
        (["--set", "penalty_weight"], "set: 'penalty_weight' is not of the form NAME=VALUE"),
        (["--set", "penalty_weight=much"], "penalty_weight: Input should be a valid number"),
        (["--set", "penalty_weight=-1"], "penalty_weight: Input should be greater than or equal to 0"),
        (["--algorithm", "corral"], "algorithm: 'corral' is not known; allowed are adrmx, and_mask, arm"),
        (["--target", "vivd"], "allowed are dim, mid, vivid or 0 to 2; did you mean 'vivid'?"),
        (["--target", "night"], "target: 'night' is not a domain; allowed are dim, mid, vivid or 0 to 2"),
        (["--dataset", "nowhere"], "dataset: 'nowhere' is not known; allowed are"),
        (["--backbone", "resnet19"], "name: 'resnet19' is not known"),
        (["--steps", "0"], "'--steps': must be a whole number of at least 1, got 0"),
        (["--set", "batch_size=14"], "batch_size: domain 'dim' has 13 training samples"),
    ],
)
def test_bad_input_is_one_sentence(folder: Path, tmp_path: Path, changes: list[str], message: str) -> None:
    given = [word for word in SHORT if "--set" not in changes or word not in ("--set", "batch_size=3")]
    result = hessalign("train", "--dataset", str(folder), *given, "--out", str(tmp_path / "new"), *changes)
    assert result.returncode == 2, result.stderr
    assert message in words(result.stderr)
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "new").exists()


def test_a_broken_image_is_named(folder: Path, tmp_path: Path, run: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 not really")
    result = hessalign("predict", str(run), str(broken))
    assert result.returncode == 1
    assert "broken.jpg: the image cannot be read" in words(result.stderr)
    assert "Traceback" not in result.stderr
    missing = hessalign("predict", str(folder), str(broken))
    assert missing.returncode == 2
    assert "holds no run, no checkpoint and no shared model" in words(missing.stderr)


def test_a_run_is_shared_and_predicts_as_it_did(folder: Path, run: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    result = hessalign("export", run, "--format", "pretrained", "--selection", "oracle", "--out", model)
    assert result.returncode == 0, result.stderr
    config = json.loads((model / "config.json").read_text())
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert config["evaluation"] == last["accuracies"]
    card = (model / "README.md").read_text()
    assert "too good to be expected" in card
    assert f"| vivid | target | {100 * last['accuracies']['vivid']['in']:.1f} |" in card
    before, after = (hessalign("predict", place, folder / "vivid").stdout for place in (run, model))
    assert before == after
    assert len(after.splitlines()) == 2 * IMAGES + 1
    script = hessalign("export", model, "--format", "torchscript", "--out", tmp_path / "m.pt", "--json")
    assert json.loads(script.stdout)["difference"] <= 1e-5
    for words_of, message in (
        (["--format", "onnx", "--out", tmp_path / "m.pt"], "out: a file of the format onnx ends in .onnx"),
        (
            ["--format", "torchscript", "--selection", "oracle", "--out", tmp_path / "n.pt"],
            "selection: belongs",
        ),
        (["--format", "pretrained", "--out", run], "holds other things (.lock, checkpoints, done)"),
    ):
        refused = hessalign("export", run, *words_of)
        assert (refused.returncode, message in words(refused.stderr)) == (2, True), refused.stderr
