"""``hessalign train --devices 2`` against one process, and its scalars for TensorBoard."""

import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hessalign.runs.checkpoints import TRAINED, WEIGHTS
from hessalign.training import read_predictions, read_records
from tests.cli.command import hessalign, run_process, start_process, words
from tests.cli.small_images import DOMAINS, draw_images
from tests.training.tiny_features import flat

# A network without BatchNorm; five samples in two domains do not divide by two.
RUN = ["--algorithm", "hgp", "--target", "vivid", "--backbone", "timm:test_vit", "--weights", "none"]
EXACT = [*RUN, "--set", "batch_size=5", "--device", "cpu", "--precision", "64-true"]
STEPS = ["--steps", "5", "--evaluate-every", "4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_images(tmp_path_factory.mktemp("images"), "jpg")


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    arguments = ("train", "--dataset", str(folder), *EXACT, *STEPS, "--save-predictions")
    result = hessalign(*arguments, "--out", str(out))
    assert result.returncode == 0, result.stderr
    return out


def assert_equal_records(out: Path, alone: Path) -> None:
    ours, theirs = read_records(out), read_records(alone)
    assert len(ours) == len(theirs) == 2
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.pop("accuracies") == other.pop("accuracies")
        for name in ("step_seconds", "predictions"):  # a digest, which tells last bits apart
            mine.pop(name, None)
            other.pop(name, None)
        assert mine.pop("undefined", None) == other.pop("undefined", None)
        assert flat(mine.pop("metrics")) == pytest.approx(flat(other.pop("metrics")), rel=1e-6, abs=1e-9)
        assert {"loss", "penalty", "gradient_1", "hessian_1"} <= mine.keys()
        assert mine == pytest.approx(other, rel=1e-6, abs=1e-9)


@pytest.mark.slow
def test_two_processes_give_the_records_of_one_and_scalars(folder: Path, alone: Path, tmp_path: Path) -> None:
    command = ["train", "--dataset", str(folder), *EXACT, *STEPS, "--devices", "2", "--tensorboard"]
    result = run_process(*command, "--out", tmp_path / "run", "--json", "--save-predictions")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == read_records(tmp_path / "run")[-1]
    assert result.stderr.count("steps") <= 1
    assert "distributed" not in result.stderr
    assert_equal_records(tmp_path / "run", alone)

    ours, theirs = read_predictions(tmp_path / "run"), read_predictions(alone)
    assert ours.drop("logits").equals(theirs.drop("logits"))
    np.testing.assert_allclose(ours["logits"].to_numpy(), theirs["logits"].to_numpy(), rtol=1e-6, atol=1e-9)
    assert all(Path(file).is_file() for file in ours["file"])

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train/loss", "train/penalty", "train/hessian_0", "speed/images_per_second"} <= tags
    assert {f"accuracy/{domain}/{part}" for domain in DOMAINS for part in ("in", "out")} <= tags
    drawn = {event.step: event.value for event in events.Scalars("accuracy/dim/in")}
    assert drawn == {
        record["step"]: pytest.approx(record["accuracies"]["dim"]["in"])
        for record in read_records(tmp_path / "run")
    }
    assert hessalign("predict", str(tmp_path / "run"), str(folder / "dim")).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_in_two_processes_it_goes_on_in_one(
    folder: Path, alone: Path, tmp_path: Path, how: signal.Signals
) -> None:
    arguments = ["train", "--dataset", str(folder), *EXACT, *STEPS, "--out", str(tmp_path / "run")]
    process = start_process(*arguments, "--devices", "2")
    while not read_records(tmp_path / "run"):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)  # the other process ends, too: it holds the same pipe
    assert not (tmp_path / "run" / "done").exists()
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "Interrupted. The latest checkpoint is in" in words(errors)
        assert "Traceback" not in errors
    result = hessalign(*arguments, "--resume")
    assert result.returncode == 0, result.stderr
    assert_equal_records(tmp_path / "run", alone)


@pytest.mark.slow
def test_a_truncated_image_ends_all_processes_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    broken = draw_images(tmp_path / "images", "jpg")
    for path in (broken / "dim").glob("*/*.jpg"):
        path.write_bytes(path.read_bytes()[:-300])
    result = run_process(
        "train", "--dataset", str(broken), *RUN, *STEPS, "--device", "cpu", "--set", "batch_size=5",
        "--devices", "2", "--loaders", "1", "--out", str(tmp_path / "run"),
    )  # fmt: skip
    assert result.returncode == 1, result.stderr
    assert result.stderr.count("Stopped: ") == 1
    assert ".jpg: the image cannot be read (" in words(result.stderr)
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_network_that_cannot_be_shared_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    arguments = [*RUN[:-3], "torchvision:resnet18", "--weights", "none", "--set", "batch_size=5", *STEPS]
    result = run_process(
        "train", "--dataset", str(folder), *arguments, "--device", "cpu", "--devices", "2",
        "--out", str(tmp_path / "run"),
    )  # fmt: skip
    assert result.returncode == 2
    assert words(result.stderr).count("devices: several processes cannot share the batch statistics") == 1
    assert not (tmp_path / "run").exists()


def test_a_missing_tensorboard_is_one_sentence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that cannot be imported stands for an environment without the extra."""
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    arguments = ["train", "--dataset", str(folder), *EXACT, *STEPS, "--out", str(tmp_path / "run")]
    result = hessalign(*arguments, "--tensorboard")
    assert result.returncode == 2
    assert "tensorboard: it is not installed; pip install 'hessalign[tensorboard]'" in words(result.stderr)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_average_climb_and_hold_fast_as_one(folder: Path, tmp_path: Path) -> None:
    """SWAD, whose start the source loss decides, DISAM's three passes, a backbone that is held at first."""
    recipe = [
        "--average",
        "swad",
        "--swad-converge",
        "1",
        "--sharpness",
        "disam",
        "--linear-probe-steps",
        "2",
    ]
    command = ["train", "--dataset", str(folder), *EXACT, *STEPS, *recipe]
    assert hessalign(*command, "--out", tmp_path / "one").returncode == 0
    result = run_process(*command, "--devices", "2", "--out", tmp_path / "two")
    assert result.returncode == 0, result.stderr
    one, two = (next((tmp_path / name / "checkpoints").glob("step-*")) / WEIGHTS for name in ("one", "two"))
    expected = load_file(one)
    assert (one.parent / TRAINED).exists()
    for name, value in load_file(two).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-9)
    assert_equal_records(tmp_path / "two", tmp_path / "one")
