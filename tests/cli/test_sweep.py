"""``hessalign sweep`` on Colored MNIST."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.cli.command import hessalign, run_process, start_process, words

SHORT = ["--steps", "3", "--evaluate-every", "2", "--evaluate-samples", "5", "--set", "batch_size=4"]
MNIST = ["--datasets", "colored_mnist", *SHORT, "--device", "cpu"]
GRID = [*MNIST, "--algorithms", "erm,hgp", "--trials", "1", "--hparams", "2", "--targets", "singles"]
SMALL = [*MNIST, "--algorithms", "erm", "--trials", "1", "--hparams", "2", "--targets", "singles"]
LONG = [*SMALL, "--steps", "12"]


def sweep(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return hessalign("sweep", *arguments)


def start(*arguments: str | Path) -> "subprocess.Popen[str]":
    return start_process("sweep", *arguments)


def records(out: Path) -> dict[str, list[dict]]:
    """By run, without the timings."""
    found = {}
    for path in out.glob("runs/*/metrics.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.parent.name] = [
            {name: value for name, value in line.items() if name != "step_seconds"} for line in lines
        ]
    return found


def planned(out: Path) -> set[tuple[str, int, int]]:
    """Algorithm, trial and draw of every run."""
    specs = [json.loads(path.read_text()) for path in out.glob("runs/*/spec.json")]
    return {(spec["algorithm"], spec["trial_seed"], spec["hparams_seed"]) for spec in specs}


def wait_for_records(out: Path, process: "subprocess.Popen[str]") -> None:
    while not list(out.glob("runs/*/metrics.jsonl")):
        assert process.poll() is None
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def workers_of(process: "subprocess.Popen[str]") -> list[int]:
    """The processes that do its runs, and the one that they are forked from."""
    children = children_of(process.pid)
    (server,) = (pid for pid in children if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes())
    return [server, *children_of(server)]


def is_alive(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("local")
    result = sweep(*GRID, "--jobs", "2", "--out", out)
    assert result.returncode == 0, result.stderr
    assert "[12/12]" in result.stderr
    assert re.search(r"colored_mnist │ hgp +│ +6 │ +6 │ +0 │", result.stdout)
    return out


def test_a_sweep_does_every_run_once(local: Path) -> None:
    runs = list((local / "runs").iterdir())
    assert len(runs) == 12
    assert planned(local) == {(algorithm, 0, draw) for algorithm in ("erm", "hgp") for draw in (0, 1)}
    assert all((run / "done").exists() and not (run / "checkpoints").exists() for run in runs)
    assert [record["step"] for record in records(local)[runs[0].name]] == [0, 2]
    assert json.loads((local / "sweep.json").read_text())["settings"]["steps"] == 3


def test_finished_runs_are_skipped(local: Path) -> None:
    before = records(local)
    again = sweep(*GRID, "--json", "--out", local)
    assert again.returncode == 0, again.stderr
    document = json.loads(again.stdout)
    assert (document["runs"], document["skipped"], document["finished"]) == (12, 12, 0)
    assert [row["algorithm"] for row in document["rows"]] == ["erm", "hgp"]
    assert all(0 <= row["best_validation"] <= 1 for row in document["rows"])
    assert records(local) == before


@pytest.mark.slow
def test_a_failing_algorithm_is_reported_and_the_others_finish(tmp_path: Path) -> None:
    (tmp_path / "stumbling.py").write_text(
        "import os\n"
        "from hessalign.algorithms import Algorithm, register\n"
        "from hessalign.algorithms.erm import ERM\n"
        "@register('stumbling')\n"
        "class Stumbling(ERM):\n"
        "    def objective(self, batch):\n"
        "        if 'WELL' not in os.environ and self.steps_done == 2:\n"
        "            raise RuntimeError('stumbled over\\na stone')\n"
        "        return super().objective(batch)\n"
    )
    metadata = tmp_path / "stumbling-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: stumbling\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[hessalign.algorithms]\nstumbling = stumbling\n")
    paths = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    env = {"PYTHONPATH": paths}
    arguments = [*SMALL, "--hparams", "1", "--algorithms", "erm,stumbling", "--jobs", "1"]
    arguments += ["--out", tmp_path / "out"]
    result = run_process("sweep", *arguments, env=env)
    assert result.returncode == 1
    assert result.stderr.count("Failed: stumbling on colored_mnist") == 3
    assert "RuntimeError: stumbled over a stone" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(list(tmp_path.glob("out/runs/*/done"))) == 3
    errors = [json.loads(path.read_text()) for path in tmp_path.glob("out/runs/*/error.json")]
    assert [error["attempts"] for error in errors] == [2, 2, 2]
    assert all("in objective" in error["traceback"] for error in errors)
    mended = run_process("sweep", *arguments, "--json", env={**env, "WELL": "1"})
    assert mended.returncode == 0, mended.stderr
    assert json.loads(mended.stdout)["finished"] == 3
    assert not list(tmp_path.glob("out/runs/*/error.json"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--algorithms", "erm,ermm"], "--algorithms: 'ermm' is not known; allowed are adrmx, and_mask"),
        (["--trials", "0"], "'--trials': must be a whole number of at least 1, got 0"),
        (["--jobs", "0"], "'--jobs': must be a whole number of at least 1, got 0"),
        (["--address", "auto"], "address: belongs to --engine ray, and the engine is local"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, changes: list[str], message: str) -> None:
    result = sweep(*SMALL, "--out", tmp_path / "new", *changes)
    assert result.returncode == 2, result.stderr
    assert message in words(result.stderr)
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "new").exists()


def test_a_dry_run_counts_and_estimates_and_writes_nothing(tmp_path: Path) -> None:
    arguments = [*MNIST, "--algorithms", "erm,hgp", "--out", tmp_path / "new", "--dry-run"]
    result = sweep(*arguments, "--jobs", "4", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["runs"] == 720
    assert [row["runs"] for row in document["rows"]] == [360, 360]
    assert document["seconds"] == pytest.approx(sum(row["seconds"] for row in document["rows"]))
    assert document["wall_seconds"] == pytest.approx(document["seconds"] / 4)
    assert document["bytes"] == sum(row["disk_bytes"] for row in document["rows"]) > 0
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_more_trials_extend_a_sweep_and_ray_gives_the_same_records(local: Path, tmp_path: Path) -> None:
    more = [*GRID, "--trials", "2"]
    extended = shutil.copytree(local, tmp_path / "extended")
    result = run_process("sweep", *more, "--jobs", "2", "--json", "--out", extended)
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["runs"], document["skipped"], document["finished"]) == (24, 12, 12)
    assert planned(extended) == {
        (algorithm, trial, draw) for algorithm in ("erm", "hgp") for trial in (0, 1) for draw in (0, 1)
    }
    by_ray = ["--engine", "ray", "--cpus-per-run", "1", "--out", tmp_path / "ray"]
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        # What a cluster leaves that was started here last and was killed.
        (Path(folder) / "ray").mkdir()
        (Path(folder) / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
        result = run_process("sweep", *more, *by_ray, env={"RAY_TMPDIR": folder})
    assert result.returncode == 0, result.stderr
    assert records(tmp_path / "ray") == records(extended)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    assert sweep(*LONG, "--jobs", "2", "--out", out).returncode == 0
    return out


@pytest.mark.slow
@needs_proc
def test_killed_workers_change_nothing(undisturbed: Path, tmp_path: Path) -> None:
    process = start(*LONG, "--jobs", "2", "--out", tmp_path)
    wait_for_records(tmp_path, process)
    for pid in workers_of(process):
        os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, errors
    assert records(tmp_path) == records(undisturbed)
    assert not list(tmp_path.glob("runs/*/error.json"))


@pytest.mark.slow
def test_two_sweeps_on_one_folder_share_the_runs(undisturbed: Path, tmp_path: Path) -> None:
    processes = [start(*LONG, "--jobs", "2", "--json", "--out", tmp_path) for _ in range(2)]
    documents = []
    for process in processes:
        output, errors = process.communicate(timeout=1200)
        assert process.returncode == 0, errors
        documents.append(json.loads(output))
    assert sum(document["finished"] for document in documents) == 6
    assert all(document["finished"] + document["skipped"] == 6 for document in documents)
    assert records(tmp_path) == records(undisturbed)


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL])
def test_an_ended_sweep_leaves_no_process_and_goes_on(tmp_path: Path, blow: signal.Signals) -> None:
    process = start(*LONG, "--jobs", "2", "--out", tmp_path)
    wait_for_records(tmp_path, process)
    workers = workers_of(process)
    assert workers
    process.send_signal(blow)
    _, errors = process.communicate(timeout=60)
    if blow == signal.SIGINT:
        assert process.returncode == 130
        assert "run the same command to go on with the rest" in errors
        assert "Traceback" not in errors
    deadline = time.monotonic() + 10
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, workers))
    again = sweep(*LONG, "--jobs", "2", "--json", "--out", tmp_path)
    assert again.returncode == 0, again.stderr
    document = json.loads(again.stdout)
    assert document["finished"] + document["skipped"] == 6
    assert document["finished"] > 0
