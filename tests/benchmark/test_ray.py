"""The engine of a Ray cluster; that it gives the same records is tested with the command, too."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from hessalign.benchmark.engines import RayEngine
from hessalign.benchmark.engines import ray as engines_ray
from hessalign.benchmark.job import Job, Outcome, perform
from hessalign.datasets.registry import find_data
from hessalign.runs import DONE, read_records
from hessalign.training import Machine
from tests.training.tiny_features import feature_spec, tiny_features

CPU = Machine(accelerator="cpu")


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # an import of it then fails, as where it is not installed
    with pytest.raises(
        ValueError, match=r"engine: 'ray' is not installed; run  pip install 'hessalign\[ray\]'"
    ):
        RayEngine()


def jobs_of(data: Path, out: Path, count: int, **changes) -> list[Job]:
    source = find_data(str(data))
    fingerprint = source.open(0).fingerprint
    specs = [feature_spec("fish", data=fingerprint, seed=seed, **changes) for seed in range(count)]
    return [Job(spec, source, out, CPU, keep_checkpoint=True) for spec in specs]


def results(jobs: list[Job]) -> list[tuple[list[dict], bytes]]:
    """Records without their timings, and the final weights."""
    return [
        (
            [{**record, "step_seconds": 0} for record in read_records(job.folder)],
            next(job.folder.glob("checkpoints/step-*/model.safetensors")).read_bytes(),
        )
        for job in jobs
    ]


def test_a_node_with_a_folder_of_its_own_sends_back_what_a_run_left(tmp_path: Path) -> None:
    """What the node does and what is done here, one after the other, with the folder moved between."""
    tiny_features(tmp_path / "f.safetensors")
    here, there = tmp_path / "sweep", tmp_path / "node"
    (job,) = jobs_of(tmp_path / "f.safetensors", here, 1, steps=4, evaluate_every=2)
    with engines_ray._mark(here) as mark:
        (shared,) = engines_ray._perform([job], 1, mark)
        assert shared.files is None
    expected = results([job])
    assert not list(here.glob(".shared-*"))
    here.rename(there)
    (sent,) = engines_ray._perform([job], 1, mark)  # the node's folder, without the mark
    assert sent.outcome.status == "finished"
    here.rename(tmp_path / "again")
    assert engines_ray._received(sent).status == "finished"
    assert results([job]) == expected
    # Sent once more, for a node was taken for dead: what is here stays.
    assert engines_ray._received(sent).status == "skipped"
    # What failed there tells why here; what is under way there leaves nothing here.
    (other,) = jobs_of(tmp_path / "f.safetensors", here, 1, steps=5)
    failed = engines_ray._Done(Outcome(other, "failed", "no"), {"error.json": b"{}"})
    assert engines_ray._received(failed).status == "failed"
    assert (other.folder / "error.json").read_bytes() == b"{}"
    held = engines_ray._Done(Outcome(other, "held"), {"spec.json": b"{}"})
    assert engines_ray._received(held).status == "held"
    assert not (other.folder / "spec.json").exists()


def may_unshare() -> bool:
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return tried.returncode == 0


@contextmanager
def node(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A node that ends with the block, and everything that it started."""
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        for pid in reversed(family(process.pid)):
            kill(pid)
        process.wait()


def family(pid: int) -> list[int]:
    """A process and all below it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [pid, *(below for child in children for below in family(int(child)))]


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def named(pids: list[int], name: str) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text().strip() == name]


@pytest.mark.slow
@pytest.mark.skipif(not may_unshare(), reason="only root can give a process a file system of its own")
def test_two_nodes_with_folders_of_their_own_and_one_of_them_killed(tmp_path: Path, ray_alone: None) -> None:
    tiny_features(tmp_path / "f.safetensors")
    out = tmp_path / "sweep"
    out.mkdir()
    jobs = jobs_of(tmp_path / "f.safetensors", out, 12, steps=60, evaluate_every=10)
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "1"]
    port = 20_000 + os.getpid() % 10_000
    start = f"mount -t tmpfs tmpfs {out} && exec {' '.join(ray)} --address 127.0.0.1:{port}"
    with (
        node(*ray, "--head", "--port", str(port), "--include-dashboard", "false"),
        node("unshare", "-m", "sh", "-c", start) as second,
    ):
        engine = connected(f"127.0.0.1:{port}", nodes=2)
        try:
            found, killed = [], False
            for outcome in engine.perform([[job] for job in jobs]):
                found.append(outcome)
                theirs = list(Path(f"/proc/{second.pid}/root{out}").glob(f"runs/*/{DONE}"))
                if theirs and not killed:
                    assert len(found) < len(jobs)
                    (raylet,) = named(family(second.pid), "raylet")
                    kill(raylet)
                    killed = True
        finally:
            engine.close()
    assert killed
    assert {outcome.status for outcome in found} == {"finished"}
    alone = jobs_of(tmp_path / "f.safetensors", tmp_path / "alone", 12, steps=60, evaluate_every=10)
    for job in alone:
        perform([job])
    assert results(jobs) == results(alone)


def connected(address: str, nodes: int) -> RayEngine:
    """The engine, once all nodes are there."""
    end = time.monotonic() + 60
    while True:
        try:
            engine = RayEngine(address)
        except ValueError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
            continue
        while sum(one["Alive"] for one in engine._ray.nodes()) < nodes:
            assert time.monotonic() < end
            time.sleep(0.1)
        return engine
