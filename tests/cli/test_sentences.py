"""What is wrong is said once, by the names that the user knows, and not on stdout."""

import re
from pathlib import Path

import pytest

from tests.cli.command import hessalign, words

NEW = ("--out", "new")
TRAIN = ("train", "--dataset", "rotated_mnist", "--algorithm", "erm", "--target", "0", *NEW)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            ("sweep", "--datasets", "rotated_mnist", "--backbone", "resnet18", "--weights", "w.bin", *NEW),
            "weights: 'w.bin' is not known; allowed are 'none', 'hub'",
        ),
        (
            ("features", "--dataset", "rotated_mnist", "--backbone", "resnet18", "--weights", "w.bin", *NEW),
            "weights: 'w.bin' is not known; allowed are 'none', 'hub'",
        ),
        (("datasets", "verify", "pacs", "--root", "nowhere"), "root: there is no file or folder nowhere"),
        (("datasets", "verify", "pacs"), "root: pacs is read from disk and none was given"),
        (("datasets", "verify", "pcas"), "did you mean 'pacs'?"),
        (("cmnist", "--track", "wandbb", *NEW), "track: 'wandbb' is not known"),
        (("cmnist", "--device", "abacus", *NEW), "device: 'abacus' cannot be used here"),
        (("predict", ".", ".", "--device", "abacus"), "device: 'abacus' cannot be used here"),
        (("inspect", ".", "--device", "abacus"), "device: 'abacus' cannot be used here"),
        (("cmnist", "--steps", "0", *NEW), "'--steps': must be a whole number of at least 1, got 0"),
        ((*TRAIN, "--sharpness", "s"), "sharpness: "),
        (("collect", "nowhere"), "folder: there is no folder nowhere"),
    ],
)
def test_no_name_is_said_twice(
    line: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = hessalign(*line)
    said = words(result.stderr)
    assert (result.returncode, message in said) == (2, True), said
    assert not re.search(r"\b(\w+)'?: (\w+\.)?\1: ", said), said
    assert not list(tmp_path.iterdir())
