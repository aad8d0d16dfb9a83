"""Every command as a process of its own: its exit code, and clean streams."""

import json
from pathlib import Path

import pytest

from tests.cli.command import run_process, words
from tests.cli.small_images import draw_images
from tests.training.tiny_features import tiny_features

REFUSED = {
    ("cmnist", "--restarts", "0"): "--restarts': must be a whole number of at least 1, got 0",
    ("cmnist-study", "probes", "--fast"): "run python -m papers.colored_mnist study, with the same arguments",
    (
        "train",
        "--dataset",
        "nowhere",
        "--algorithm",
        "erm",
        "--target",
        "0",
        "--out",
        "new",
    ): "'nowhere' is not",
    (
        "features",
        "--dataset",
        "nowhere",
        "--backbone",
        "resnet18",
        "--out",
        "new.safetensors",
    ): "'nowhere' is not",
    ("predict", "nowhere", "a.png"): "nowhere",
    ("inspect", "nowhere"): "source: there is no file or folder nowhere",
    (
        "sweep",
        "--datasets",
        "colored_mnist",
        "--algorithms",
        "erm",
        "--out",
        "new",
        "--jobs",
        "0",
    ): "must be a whole number of at least 1, got 0",
    ("collect", "nowhere"): "folder: there is no folder nowhere",
    ("datasets", "verify", "nothing"): "dataset: 'nothing' is not known",
    ("datasets", "download", "nothing", "--root", "."): "dataset: 'nothing' is not known",
    ("nothing",): "No such command 'nothing'",
}


@pytest.mark.parametrize("arguments", REFUSED, ids=lambda arguments: " ".join(arguments[:2]))
def test_bad_input_ends_with_2_and_says_so_on_stderr_alone(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    result = run_process(*arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert REFUSED[arguments] in words(result.stderr)
    for stray in ("Traceback", "Warning"):
        assert stray not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_every_command_gives_its_result_and_nothing_else(tmp_path: Path) -> None:
    """Each on what those before it left; ``--json``, so that a stray word on stdout would be seen."""
    draw_images(tmp_path / "images")
    tiny_features(tmp_path / "own.safetensors")
    few = ("--set", "batch_size=4", "--device", "cpu")
    steps = ("--steps", "2", "--evaluate-every", "1")
    fast = ("--fast", "--steps", "3", "--subsample", "100")
    network = ("--backbone", "timm:test_convnext", "--weights", "none")
    run = ("--algorithm", "hgp", "--target", "0", *few, *steps)
    sweep = ("--algorithms", "erm", "--trials", "1", "--hparams", "1", "--targets", "singles", *few, *steps)
    for arguments in (
        ("cmnist", *fast, "--methods", "erm", "--out", "cmnist"),
        ("features", "--dataset", "images", *network, "--device", "cpu", "--out", "made.safetensors"),
        ("train", "--dataset", "images", *network, *run, "--out", "run"),
        ("predict", "run", "images/dim/red"),
        ("inspect", "run", "--root", "images", "--replicates", "20"),
        ("sweep", "--datasets", "own.safetensors", *sweep, "--jobs", "1", "--out", "sweep"),
        ("collect", "sweep"),
        ("datasets", "list"),
        ("datasets", "verify", "image_folder", "--root", "images"),
    ):
        result = run_process(*arguments, "--json", cwd=tmp_path)
        assert result.returncode == 0, f"{arguments}: {result.stderr}"
        assert json.loads(result.stdout), arguments
        for stray in ("Traceback", "Warning"):
            assert stray not in result.stderr, arguments
