"""``--device``: one name for where to compute, in every command."""

import json
from pathlib import Path

import pytest
import torch

from hessalign.cli import usable_device, visible_gpus
from hessalign.training import Machine
from hessalign.training.machine import make_fabric
from tests.cli.command import hessalign, words
from tests.training.tiny_features import tiny_features

HERE = torch.cuda.device_count()


def test_auto_is_a_gpu_where_there_is_one() -> None:
    assert usable_device("cpu") == torch.device("cpu")
    assert (usable_device("auto").type == "cpu") == (not HERE and not torch.backends.mps.is_available())


@pytest.mark.parametrize("name", ["meta", "abacus", "cuda:x", "cuda:99", "cpu:", ""])
def test_no_device_is_a_sentence(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be used here"):
        usable_device(name)


@pytest.mark.skipif(HERE > 0, reason="there is a GPU")
def test_without_a_gpu_none_is_dealt_out_and_none_is_taken_for_it() -> None:
    assert visible_gpus("auto") == visible_gpus("cuda:1") == visible_gpus("cpu") == ()
    with pytest.raises(ValueError, match=r"'gpu' cannot be used here \(there is none\)"):
        usable_device("gpu")


@pytest.mark.skipif(HERE == 0, reason="there is no GPU")
def test_a_gpu_goes_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert list(visible_gpus("auto")) == list(visible_gpus("cuda")) == [str(index) for index in range(HERE)]
    assert list(visible_gpus(f"cuda:{HERE - 1}")) == [str(HERE - 1)]
    assert make_fabric(Machine(f"cuda:{HERE - 1}")).device == torch.device(f"cuda:{HERE - 1}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert list(visible_gpus("cuda:1")) == ["GPU-b"]
    for name in ("cuda:2", "cuda:x"):
        with pytest.raises(ValueError, match=rf"device: '{name}' is not here; allowed are cuda:0 to cuda:1"):
            visible_gpus(name)


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (Machine("cpu:0"), "accelerator: 'cpu:0' is not known; one device is 'cuda:1', by its number"),
        (Machine("cuda:x"), "accelerator: 'cuda:x' is not known"),
        (Machine("cuda:"), "accelerator: 'cuda:' is not known"),
        (Machine("auto:0"), "accelerator: 'auto:0' is not known"),
        (Machine("cuda:0", devices=2), "devices: 2 processes cannot have 'cuda:0' alone"),
        (
            Machine("cuda:99"),
            "accelerator, devices, precision: 'cuda:99' with 1 and '32-true' is not available",
        ),
    ],
)
def test_a_machine_that_is_not_there_is_a_sentence(machine: Machine, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_fabric(machine)


@pytest.mark.parametrize("command", ["train", "features", "sweep", "cmnist", "inspect"])
def test_every_command_refuses_a_device_that_is_not_there(command: str, tmp_path: Path) -> None:
    tiny_features(tmp_path / "tiny.safetensors")
    data = tmp_path / "tiny.safetensors"
    run = ("--set", "batch_size=4", "--steps", "1", "--out", tmp_path / "new")
    line = {
        "train": ("--dataset", data, "--algorithm", "erm", "--target", "0", *run),
        "features": (
            "--dataset",
            "colored_mnist",
            "--backbone",
            "mnist_cnn",
            "--out",
            tmp_path / "new.safetensors",
        ),
        "sweep": ("--datasets", data, "--algorithms", "erm", "--dry-run", *run),
        "cmnist": ("--fast", "--out", tmp_path / "new"),
        "inspect": (data, "--plots", tmp_path / "new"),
    }[command]
    for device in ("cuda:99", "abacus"):
        result = hessalign(command, *line, "--device", device)
        assert result.returncode == 2, (device, result.stderr)
        assert "cannot be used here" in words(result.stderr) or "is not" in words(result.stderr)
        assert device.partition(":")[0] in words(result.stderr)
        assert [path.name for path in tmp_path.iterdir()] == ["tiny.safetensors"]


@pytest.mark.parametrize("wrong", [("--device", "abacus"), ("--precision", "transformer-engine")])
def test_a_sweep_is_refused_before_its_runs_fail(wrong: tuple[str, str], tmp_path: Path) -> None:
    tiny_features(tmp_path / "tiny.safetensors")
    run = ("--datasets", tmp_path / "tiny.safetensors", "--algorithms", "erm", "--set", "batch_size=4")
    few = ("--trials", "1", "--hparams", "1", "--targets", "singles", "--steps", "1", "--jobs", "1")
    result = hessalign("sweep", *run, *few, *wrong, "--out", tmp_path / "new")
    assert result.returncode == 2, result.stderr
    assert "is not available here" in words(result.stderr)
    assert not (tmp_path / "new").exists()


def test_ray_deals_gpus_out_itself(tmp_path: Path) -> None:
    line = ("sweep", "--datasets", "colored_mnist", "--engine", "ray", "--out", tmp_path / "new")
    result = hessalign(*line, "--device", "cuda:1")
    assert result.returncode == 2
    assert "device: 'cuda:1' is one GPU, and Ray deals them out" in words(result.stderr)


def test_a_run_goes_where_it_is_told(tmp_path: Path) -> None:
    """On the best device there is, by every name that it has."""
    tiny_features(tmp_path / "tiny.safetensors")
    run = ("--dataset", tmp_path / "tiny.safetensors", "--algorithm", "erm", "--target", "0", "--steps", "1")
    names = ("cuda:0", "cuda", "gpu", "auto") if HERE else ("cpu", "auto")
    records = []
    for name in names:
        out = tmp_path / name.replace(":", "")
        result = hessalign("train", *run, "--set", "batch_size=4", "--device", name, "--json", "--out", out)
        assert result.returncode == 0, result.stderr
        records.append(json.loads(result.stdout)["loss"])
    assert len(set(records)) == 1


def test_inside_a_slurm_job_a_run_starts_its_own_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the job has: of a job with four tasks Fabric would demand four devices, and refuse one."""
    for name, value in {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "sweep", "SLURM_JOB_ID": "7"}.items():
        monkeypatch.setenv(name, value)
    fabric = make_fabric(Machine("cpu"))
    assert (fabric.world_size, fabric.global_rank) == (1, 0)
