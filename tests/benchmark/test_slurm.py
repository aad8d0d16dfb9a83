"""The engine of a SLURM cluster: as processes of this machine, and what it says to SLURM's commands."""

import json
import os
import signal
import stat
import sys
import threading
import time
from pathlib import Path

import pytest

from hessalign.benchmark.engines import SlurmEngine
from hessalign.benchmark.engines import slurm as engines_slurm
from hessalign.benchmark.job import Job, perform
from hessalign.datasets.registry import find_data
from hessalign.training import Machine, latest_checkpoint, read_records
from tests.cli.command import hessalign, words
from tests.training.tiny_features import feature_spec, tiny_features

CPU = Machine(accelerator="cpu")

SBATCH = """#!{python}
import itertools, pathlib, shutil, sys
here = pathlib.Path({here!r})
number = next(i for i in itertools.count(4242) if not (here / f"{{i}}.sh").exists())
shutil.copy(sys.argv[1], here / f"{{number}}.sh")
print(f"Submitted batch job {{number}}")
"""
SACCT = """#!{python}
import pathlib, sys
here = pathlib.Path({here!r})
print("JobID|State|NodeList")
for number in sys.argv[sys.argv.index("-j") + 1 :: 2]:
    for task in range(9):
        print(f"{{number}}_{{task}}|OUT_OF_MEMORY|node7")
    print(f"{{number}}|OUT_OF_MEMORY|node7")
"""
SCANCEL = """#!{python}
import pathlib, sys
with (pathlib.Path({here!r}) / "cancelled").open("a") as file:
    print(*sys.argv[1:], file=file)
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands of SLURM that keep what they are given; every task of it dies for want of memory."""
    here = tmp_path / "cluster"
    here.mkdir()
    for name, text in {"sbatch": SBATCH, "sacct": SACCT, "scancel": SCANCEL, "srun": "#!{python}\n"}.items():
        command = here / name
        command.write_text(text.format(python=sys.executable, here=str(here)))
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{here}{os.pathsep}{os.environ['PATH']}")
    return here


def jobs_of(folder: Path, out: str, count: int, algorithm: str = "erm", **changes) -> list[Job]:
    source = find_data(str(folder / "f.safetensors"))
    data = source.open(0).fingerprint
    specs = [feature_spec(algorithm, data=data, seed=seed, **changes) for seed in range(count)]
    return [Job(spec, source, folder / out, CPU, keep_checkpoint=True) for spec in specs]


def records(jobs: list[Job]) -> list[list[dict]]:
    return [[{**record, "step_seconds": 0} for record in read_records(job.folder)] for job in jobs]


def test_without_submitit_or_slurm_it_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="engine: 'slurm' needs SLURM's commands, and sbatch is not here"):
        SlurmEngine(tmp_path / "out")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(
        ValueError, match=r"engine: 'slurm' is not installed; run  pip install 'hessalign\[sl"
    ):
        SlurmEngine(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_submitted_is_one_array_job_with_what_was_asked_for(
    tmp_path: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_features(tmp_path / "f.safetensors")
    jobs = jobs_of(tmp_path, "sweep", 3)
    asked = {"partition": "gpu", "mem": "16G", "reservation": "course"}
    engine = SlurmEngine(tmp_path / "sweep", 4, 2, 90, at_a_time=2, retries=1, sbatch=asked)
    told = engine.script(3)
    engine._submit([jobs[:1], jobs[1:2], jobs[2:]], 1)
    monkeypatch.setattr(type(engine._pending[0].task), "_results_timeout_s", 0)
    (script,) = cluster.glob("*.sh")
    assert script.read_text() == told
    lines = told.splitlines()
    for flag in (
        "array=0-2%2", "time=90", "cpus-per-task=4", "gpus-per-node=2", "partition=gpu", "mem=16G",
        "reservation=course", "job-name=hessalign", "signal=USR2@90",
    ):  # fmt: skip
        assert f"#SBATCH --{flag}" in lines, flag
    assert not [line for line in lines if "wckey" in line]
    assert {str(pending.task.job_id) for pending in engine._pending} == {"4242_0", "4242_1", "4242_2"}
    # All tasks die; each run is submitted once more, alone, and is then a failure that its folder tells of.
    monkeypatch.setattr(engines_slurm, "SECONDS_BETWEEN_LOOKS", 0.01)
    outcomes = list(engine.perform([]))
    assert [outcome.status for outcome in outcomes] == ["failed"] * 3
    assert len(list(cluster.glob("*.sh"))) == 4
    assert "#SBATCH --array" not in (cluster / "4243.sh").read_text()
    for job in jobs:
        failure = json.loads((job.folder / "error.json").read_text())
        assert failure["attempts"] == 2
        assert failure["error"].startswith("SLURM's job 424")
        assert "OUT_OF_MEMORY" in failure["error"]
    engine._submit([jobs[:1]], 2)
    engine.close()
    assert (cluster / "cancelled").read_text() == "4246\n"


def test_a_dry_run_shows_the_script_and_submits_nothing(tmp_path: Path, cluster: Path) -> None:
    tiny_features(tmp_path / "f.safetensors")
    command = [
        "sweep", "--datasets", tmp_path / "f.safetensors", "--algorithms", "erm,irm", "--targets", "singles",
        "--trials", 1, "--hparams", 1, "--steps", 4, "--set", "batch_size=4", "--out", tmp_path / "sweep",
        "--engine", "slurm", "--dry-run",
    ]  # fmt: skip
    result = hessalign(
        *command, "--sbatch", "partition=a b", "--jobs", 3, "--cpus-per-run", 2, "--together", 1
    )
    assert result.returncode == 0, result.stderr
    for line in ("#SBATCH --array=0-7%3", "#SBATCH --partition='a b'", "#SBATCH --cpus-per-task=2"):
        assert line in result.stdout.splitlines()
    assert not (tmp_path / "sweep").exists()
    assert not list(cluster.glob("*.sh"))
    for options, message in (
        (["--sbatch", "array=7"], "--sbatch: array is set by the engine"),
        (["--sbatch", "gpu"], "sbatch: 'gpu' is not of the form NAME=VALUE"),
        (["--gpus-per-run", "0.5"], "gpus-per-run: SLURM deals out whole GPUs, got 0.5"),
        (["--address", "auto"], "address: belongs to --engine ray, and the engine is slurm"),
        (["--device", "cuda:1"], "device: 'cuda:1' is one GPU, and SLURM deals them out"),
    ):
        refused = hessalign(*command, *options)
        assert (refused.returncode, message in words(refused.stderr)) == (2, True), refused.stderr


def stop_once(engine: SlurmEngine, job: Job) -> None:
    """As SLURM does before a task's time is over, once its run has left a checkpoint."""
    while latest_checkpoint(job.folder / "checkpoints") is None:
        time.sleep(0.01)
    (task,) = [pending.task for pending in engine._pending if list(pending.jobs) == [job]]
    children = Path(f"/proc/{task._process.pid}/task/{task._process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGUSR2)


@pytest.mark.slow
def test_tasks_give_the_records_of_runs_done_here_and_one_that_is_stopped_goes_on(tmp_path: Path) -> None:
    """Twelve runs in two tasks; the one of a single run is told to stop, and is queued again."""
    tiny_features(tmp_path / "f.safetensors")
    together = jobs_of(tmp_path, "slurm", 11)
    (alone,) = jobs_of(tmp_path, "slurm", 1, "fish", steps=200, evaluate_every=5)
    engine = SlurmEngine(tmp_path / "slurm", cluster="local")
    stopper = threading.Thread(target=stop_once, args=(engine, alone))
    stopper.start()
    found = list(engine.perform([together, [alone]]))
    stopper.join()
    assert {outcome.status for outcome in found} == {"finished"}
    here = [
        *jobs_of(tmp_path, "here", 11),
        *jobs_of(tmp_path, "here", 1, "fish", steps=200, evaluate_every=5),
    ]
    perform(here[:11])
    perform(here[11:])
    assert records([*together, alone]) == records(here)
    logs = "".join(path.read_text() for path in (tmp_path / "slurm" / "slurm").glob("*_log.*"))
    assert logs.count("Requeued job") == 1
    assert logs.count("Starting with") == 3
