"""What can go wrong in ``hessalign train``: one sentence each, and nothing on disk is harmed."""

import resource
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from hessalign.training import latest_checkpoint, load_trained, read_records
from tests.cli.command import hessalign, start_process, words
from tests.cli.small_images import draw_images

RUN = ["--algorithm", "hgp", "--target", "vivid", "--weights", "none", "--device", "cpu"]
SHORT = [*RUN, "--set", "batch_size=3", "--evaluate-every", "1", "--backbone", "timm:test_mambaout"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_images(tmp_path_factory.mktemp("images"), "jpg")


def assert_one_sentence(result: subprocess.CompletedProcess[str], code: int, message: str) -> None:
    assert result.returncode == code, result.stderr
    assert message in words(result.stderr)
    assert "Traceback" not in result.stderr


def test_a_truncated_image_is_named_by_workers(tmp_path: Path) -> None:
    broken = draw_images(tmp_path / "images", "jpg")
    for path in (broken / "dim").glob("*/*.jpg"):
        path.write_bytes(path.read_bytes()[:-300])
    arguments = ["train", "--dataset", str(broken), *SHORT, "--steps", "2", "--loaders", "2"]
    result = hessalign(*arguments, "--out", str(tmp_path / "run"))
    assert_one_sentence(result, 1, ".jpg: the image cannot be read (")
    assert result.stderr.count("Stopped: ") == 1
    assert f"{broken}/dim/" in words(result.stderr)


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    images = draw_images(tmp_path / "images", "jpg")
    for path in (images / "mid" / "red").iterdir():
        path.unlink()
    result = hessalign("train", "--dataset", str(images), *SHORT, "--out", str(tmp_path / "run"))
    assert_one_sentence(result, 2, f"the class folder {images}/mid/red holds no image")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_leaves_the_former_checkpoint(folder: Path, tmp_path: Path) -> None:
    """A limit on the size of files, set after the first checkpoint, stands for the disk."""
    out = tmp_path / "run"
    arguments = ["train", "--dataset", str(folder), *SHORT, "--steps", "6", "--out", str(out)]
    process = start_process(*arguments)
    while latest_checkpoint(out / "checkpoints") is None:
        assert process.poll() is None
        time.sleep(0.01)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
    _, errors = process.communicate(timeout=120)
    assert_one_sentence(
        subprocess.CompletedProcess([], process.returncode, "", errors), 1, "the checkpoint cannot be written"
    )
    assert "File too large" in words(errors)
    assert errors.count("Stopped: ") == 1
    assert [path.name for path in (out / "checkpoints").glob(".step*")] == []
    _, about = load_trained(out)
    assert 1 <= about.step < 6

    result = hessalign(*arguments, "--resume")
    assert result.returncode == 0, result.stderr
    assert [record["step"] for record in read_records(out)] == list(range(6))


def test_a_checkpoint_of_another_architecture_is_refused_and_unharmed(folder: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    run = ["train", "--dataset", str(folder), *SHORT, "--steps", "1"]
    assert hessalign(*run, "--out", str(ours)).returncode == 0
    assert hessalign(*run, "--backbone", "timm:test_convnext", "--out", str(theirs)).returncode == 0
    (ours / "done").unlink()
    shutil.rmtree(ours / "checkpoints")
    shutil.copytree(theirs / "checkpoints", ours / "checkpoints")
    before = {path: path.read_bytes() for path in ours.rglob("*") if path.is_file()}
    result = hessalign(*run, "--out", str(ours), "--resume")
    assert_one_sentence(result, 2, "model.safetensors belongs to another architecture")
    assert {path: path.read_bytes() for path in ours.rglob("*") if path.is_file()} == before

    (theirs / "checkpoints" / "step-000001" / "optimizers.pt").write_bytes(b"not one")
    (theirs / "done").unlink()
    other = hessalign(*run, "--backbone", "timm:test_convnext", "--out", str(theirs), "--resume")
    assert_one_sentence(other, 2, "optimizers.pt is damaged")
