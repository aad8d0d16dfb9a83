"""``hessalign train --plot``, ``hessalign inspect --plots``, and the numbers that both draw."""

import json
from pathlib import Path

import pytest

from tests.cli.command import hessalign, words
from tests.training.tiny_features import NAMES, tiny_features

SOURCES = len(NAMES) - 1
PARTS = {
    "hgp": ("gradient", "hessian"),
    "hutchinson": ("gradient", "hessian"),
    "exact_diagonal": ("gradient", "hessian"),
    "exact_hessian": ("gradient", "hessian"),
    "flat_head": ("gradient", "hessian_size"),
}


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "features.safetensors"
    tiny_features(path)
    return path


def arguments(features: Path, algorithm: str, out: Path) -> list[str]:
    return [
        *("train", "--dataset", str(features), "--algorithm", algorithm, "--target", "west"),
        *("--steps", "6", "--evaluate-every", "2", "--set", "batch_size=8", "--device", "cpu"),
        *("--out", str(out)),
    ]


@pytest.mark.parametrize("algorithm", PARTS)
def test_parts_of_the_penalty_are_logged_and_drawn(features: Path, tmp_path: Path, algorithm: str) -> None:
    out = tmp_path / "run"
    figure = out / "curves.png"  # the folder is made by the run itself
    result = hessalign(*arguments(features, algorithm, out), "--plot", str(figure))
    assert result.returncode == 0, result.stderr
    assert f"Curves: {figure}" in words(result.stderr)
    assert figure.read_bytes().startswith(b"\x89PNG")
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [0, 2, 4, 5]
    for record in records:
        for part in PARTS[algorithm]:
            each = [record[f"{part}_{domain}"] for domain in range(SOURCES)]
            assert record[part] == pytest.approx(sum(each) / SOURCES, rel=1e-4)


def test_a_finished_run_is_drawn_without_training_again(features: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = arguments(features, "hgp", out)
    assert hessalign(*command).returncode == 0
    before = (out / "metrics.jsonl").read_bytes()
    result = hessalign(*command, "--plot", str(tmp_path / "curves.pdf"))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "curves.pdf").read_bytes().startswith(b"%PDF")
    assert (out / "metrics.jsonl").read_bytes() == before
    figures = tmp_path / "figures"
    inspected = ["inspect", str(out), "--root", str(features), "--replicates", "20"]
    result = hessalign(*inspected, "--plots", str(figures))
    assert result.returncode == 0, result.stderr
    assert {"training.png", "training.pdf", "plane.png"} <= {path.name for path in figures.iterdir()}


@pytest.mark.parametrize(
    ("plot", "message"),
    [
        ("curves", "plot: must end in .png, .pdf, .svg"),
        ("no/curves.png", "plot: there is no folder"),
        ("folder.png", "is a folder; choose the name of a file"),
    ],
)
def test_a_figure_that_cannot_be_written_is_refused_before_any_work(
    features: Path, tmp_path: Path, plot: str, message: str
) -> None:
    (tmp_path / "folder.png").mkdir()
    out = tmp_path / "run"
    result = hessalign(*arguments(features, "erm", out), "--plot", str(tmp_path / plot))
    assert result.returncode == 2, result.stderr
    assert message in words(result.stderr)
    assert "Traceback" not in result.stderr
    assert not out.exists()
