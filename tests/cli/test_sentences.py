"""What is wrong is said once, by the names that the user knows, and not on stdout."""

import json
import re
from pathlib import Path

import pytest

from hessalign import files
from tests.cli.command import hessalign, words
from tests.cli.small_images import draw_images

NEW = ("--out", "new")
TRAIN = ("train", "--dataset", "rotated_mnist", "--algorithm", "erm", "--target", "0", *NEW)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            ("sweep", "--datasets", "images", "--backbone", "mnist_cnn", "--weights", "w.bin", *NEW),
            "'w.bin' is not known; allowed are 'none', 'hub'",
        ),
        (
            ("features", "--dataset", "images", "--backbone", "mnist_cnn", "--weights", "w.bin", *NEW),
            "'w.bin' is not known; allowed are 'none', 'hub'",
        ),
        (("predict", ".", ".", "--device", "abacus"), "'abacus' cannot be used here"),
        (("inspect", ".", "--device", "abacus"), "'abacus' cannot be used here"),
        ((*TRAIN, "--sharpness", "s"), "sharpness: "),
        (("collect", "nowhere"), "there is no folder nowhere"),
    ],
)
def test_no_name_is_said_twice(
    line: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_images(tmp_path / "images")
    result = hessalign(*line)
    said = words(result.stderr)
    assert (result.returncode, message in said) == (2, True), said
    assert not re.search(r"\b(\w+)'?: (\w+\.)?\1: ", said), said
    assert list(tmp_path.iterdir()) == [tmp_path / "images"]


@pytest.mark.parametrize("command", ["features", "train"])
def test_a_download_is_not_told_on_stdout(command: str, tmp_path: Path) -> None:
    """PyTorch's hub prints where it downloads from; behind this proxy nobody answers."""
    images = draw_images(tmp_path / "images")
    line = {
        "features": ("--out", tmp_path / "f.safetensors"),
        "train": (
            "--algorithm",
            "erm",
            "--target",
            "dim",
            "--set",
            "batch_size=2",
            "--out",
            tmp_path / "run",
        ),
    }[command]
    nowhere = {"https_proxy": "http://127.0.0.1:9", "TORCH_HOME": str(tmp_path / "hub")}
    network = ("--backbone", "torchvision:resnet18", "--weights", "hub")
    result = hessalign(command, "--dataset", images, *network, *line, "--json", **nowhere)
    assert "weights: those of 'resnet18' could not be fetched from the hub" in words(result.stderr)
    assert (result.returncode, result.stdout) == (1, "")
    assert "Downloading" in result.stderr


def test_what_is_being_written_goes_by_its_own_name(tmp_path: Path) -> None:
    """Not by that of the draft beside it."""
    (tmp_path / "file").write_text("")
    (tmp_path / "taken.txt").mkdir()
    for place in (tmp_path / "nowhere" / "a.txt", tmp_path / "file" / "a.txt", tmp_path / "taken.txt"):
        with pytest.raises(OSError, match=rf"'{re.escape(str(place))}'$"):
            files.write_atomically(place, "text")
    with pytest.raises(FileNotFoundError, match="elsewhere"), files.replacing(tmp_path / "b.txt"):
        (tmp_path / "elsewhere").read_text()


def test_an_extraction_under_way_goes_by_the_name_of_its_file(tmp_path: Path) -> None:
    images = draw_images(tmp_path / "images")
    (tmp_path / "file").write_text("")
    command = ("features", "--dataset", images, "--backbone", "timm:test_efficientnet", "--weights", "none")
    for out, before, code, message in (
        (tmp_path / "file" / "f.safetensors", None, 1, f"'{tmp_path / 'file'}'"),
        (tmp_path / "f.safetensors", {}, 2, "f.safetensors is extracted in part; add --resume to go on"),
    ):
        if before is not None:
            (tmp_path / "f.safetensors.part").mkdir()
            (tmp_path / "f.safetensors.part" / "about.json").write_text(json.dumps(before))
        result = hessalign(*command, "--out", out)
        assert (result.returncode, message in words(result.stderr)) == (code, True), result.stderr
        assert ".part" not in result.stderr
