"""Trackers get what a run reports; none of them stops or slows it."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hessalign import trackers
from hessalign.benchmark.job import Job, perform
from hessalign.datasets.registry import find_data
from hessalign.exceptions import HessalignWarning, NoEffectWarning
from hessalign.trackers import TRACKERS, TrackedRun, Tracking
from hessalign.training import Machine, RunSpec, RunTracking, read_records, train
from tests.cli.command import hessalign, words
from tests.training.tiny_domains import TinyDomains, tiny_spec
from tests.training.tiny_features import feature_spec, tiny_features

CPU = Machine(accelerator="cpu")
FEATURES = ["--target", "0", "--algorithm", "erm", "--set", "batch_size=4"]


def run_of(folder: Path) -> TrackedRun:
    return TrackedRun("tiny", "0a1b", {"lr": 0.1}, folder, folder)


def tracked(spec: RunSpec, folder: Path, tracking: RunTracking) -> dict:
    record = train(spec, TinyDomains(), folder, CPU, tracking.write)
    tracking.close()
    return record


def steps_of(folder: Path, tag: str) -> list[int]:
    return [event.step for event in EventAccumulator(str(folder)).Reload().Scalars(tag)]


class Broken:
    """Fails at its third step, as a full disk or a lost connection would."""

    def __init__(self, run: TrackedRun, first_step: int) -> None:
        self.steps = 0

    def log(self, step: int, values: dict) -> None:
        self.steps += 1
        if self.steps == 3:
            raise ConnectionError("the server is [gone]")

    def close(self) -> None:
        raise AssertionError("closed after it failed")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRACKERS, "json", Broken)  # any module that is there stands for the extra


@pytest.mark.usefixtures("broken")
def test_a_tracker_that_fails_is_told_once_and_the_run_and_the_others_go_on(tmp_path: Path) -> None:
    spec = tiny_spec(steps=12, evaluate_every=2)
    tracking = RunTracking(["json", "tensorboard"], tmp_path / "a", spec)
    with pytest.warns(HessalignWarning, match=r"track: json is given up \(ConnectionError: .*gone") as told:
        record = tracked(spec, tmp_path / "a", tracking)
    assert len(told) == 1
    plain = train(spec, TinyDomains(), tmp_path / "b", CPU)
    assert record["accuracies"] == plain["accuracies"]
    assert steps_of(tmp_path / "a" / "tensorboard", "train/loss") == [0, 2, 4, 6, 8, 10, 11]
    assert steps_of(tmp_path / "a" / "tensorboard", "accuracy/dark/in") == [0, 2, 4, 6, 8, 10, 11]


def test_a_tracker_that_hangs_neither_slows_nor_holds_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = threading.Event()

    class Hanging(Broken):
        def log(self, step: int, values: dict) -> None:
            let_go.wait(20)

        def close(self) -> None:
            pass

    monkeypatch.setitem(TRACKERS, "json", Hanging)
    monkeypatch.setattr(trackers, "SECONDS_AT_END", 0.1)
    monkeypatch.setattr(trackers, "MOST_WAITING", 5)
    tracking = Tracking(["json"], run_of(tmp_path))
    started = time.monotonic()
    for step in range(100):
        tracking.log(step, {"loss": 1.0})
    with pytest.warns(HessalignWarning, match="track: json is given up .it has not written everything"):
        tracking.close()
    assert time.monotonic() - started < 5
    let_go.set()


def test_a_tracker_that_was_too_slow_says_how_many_steps_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, let_go, got = threading.Event(), threading.Event(), []

    class Slow(Broken):
        def log(self, step: int, values: dict) -> None:
            begun.set()
            let_go.wait(20)
            got.append(step)

        def close(self) -> None:
            pass

    monkeypatch.setitem(TRACKERS, "json", Slow)
    monkeypatch.setattr(trackers, "MOST_WAITING", 3)
    tracking = Tracking(["json"], run_of(tmp_path))
    tracking.log(0, {})
    assert begun.wait(10)
    for step in range(1, 9):
        tracking.log(step, {})
    let_go.set()
    while len(got) < 4:
        time.sleep(0.001)
    with pytest.warns(HessalignWarning, match="too slow for 5 of the steps"):
        tracking.close()
    assert got == [0, 1, 2, 3]


def test_what_is_not_known_or_not_there_is_one_sentence_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_features(tmp_path / "f.safetensors")
    monkeypatch.setitem(sys.modules, "wandb", None)
    for command in (
        ["train", "--dataset", tmp_path / "f.safetensors", *FEATURES, "--out", tmp_path / "run"],
        ["sweep", "--datasets", tmp_path / "f.safetensors", "--out", tmp_path / "run"],
        ["cmnist", "--fast", "--out", tmp_path / "run"],
    ):
        result = hessalign(*command, "--track", "tensorbord")
        assert result.returncode == 2
        assert (
            "track: 'tensorbord' is not known; allowed are tensorboard, wandb, mlflow, trackio; did"
            in words(result.stderr)
        )
        result = hessalign(*command, "--track", "tensorboard,wandb")
        assert "wandb: it is not installed; pip install 'hessalign[wandb]'" in words(result.stderr)
    assert not (tmp_path / "run").exists()


def test_a_run_that_was_done_before_has_nothing_to_track(tmp_path: Path) -> None:
    spec = tiny_spec(steps=1)
    train(spec, TinyDomains(), tmp_path, CPU)
    tracking = RunTracking(["tensorboard"], tmp_path, spec)
    train(spec, TinyDomains(), tmp_path, CPU, tracking.write)
    with pytest.warns(NoEffectWarning, match="track: the run was done before, so tensorboard has nothing"):
        tracking.close()


def test_runs_of_a_sweep_are_tracked_alone_and_together(tmp_path: Path) -> None:
    """As its workers do them."""
    tiny_features(tmp_path / "f.safetensors")
    source = find_data(str(tmp_path / "f.safetensors"))
    fingerprint = source.open(0).fingerprint
    for count in (1, 2):
        out = tmp_path / f"sweep{count}"
        specs = [
            feature_spec(data=fingerprint, seed=seed, steps=4, evaluate_every=2) for seed in range(count)
        ]
        jobs = [Job(spec, source, out, CPU, track=("tensorboard",)) for spec in specs]
        assert [outcome.status for outcome in perform(jobs)] == ["finished"] * count
        for job in jobs:
            events = EventAccumulator(str(job.folder / "tensorboard")).Reload()
            for tag, accuracy in (("train/loss", None), ("accuracy/north/out", "north")):
                found = events.Scalars(tag)
                assert [event.step for event in found] == [0, 2, 3]
                records = read_records(job.folder)
                values = [record["accuracies"][accuracy]["out"] for record in records] if accuracy else []
                assert not accuracy or [event.value for event in found] == pytest.approx(values)


def test_restarts_of_colored_mnist_are_tracked(tmp_path: Path) -> None:
    result = hessalign(
        "cmnist", "--fast", "--methods", "erm", "--steps", 3, "--subsample", 200, "--out", tmp_path,
        "--track", "tensorboard",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "tracked").iterdir()
    assert steps_of(folder / "tensorboard", "target_accuracy") == [0, 2]
    assert steps_of(folder / "tensorboard", "source_accuracy_1") == [0, 2]


READ_BACK = {
    "mlflow": """
import os
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=(out / "mlflow").as_uri())
(run,) = client.search_runs([client.get_experiment_by_name("hessalign").experiment_id])
history = client.get_metric_history(run.info.run_id, "accuracy/north/out")
found = [[one.step, one.value] for one in history]
assert run.data.params["hparams.batch_size"] == "4" and run.info.status == "FINISHED"
""",
    # Protocol buffers in the blocks of a LevelDB log, behind a header of 7 bytes.
    "wandb": """
import glob, struct
from wandb.proto import wandb_internal_pb2 as pb
(path,) = glob.glob(str(out / "wandb" / "offline-run-*" / "run-*.wandb"))
content, place, parts, found = Path(path).read_bytes(), 7, b"", []
while place + 7 <= len(content):
    left = 32768 - place % 32768
    if left < 7:
        place += left
        continue
    _, size, kind = struct.unpack("<IHB", content[place : place + 7])
    parts += content[place + 7 : place + 7 + size]
    place += 7 + size
    if kind in (1, 4):  # whole, or the last part
        record = pb.Record.FromString(parts)
        parts = b""
        items = record.history.item
        row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
        if "accuracy/north/out" in row:
            found.append([row["step"], row["accuracy/north/out"]])
""",
    "trackio": """
import os
os.environ["TRACKIO_DIR"] = str(out / "trackio")
from trackio.sqlite_storage import SQLiteStorage
(name,) = SQLiteStorage.get_runs("hessalign")
rows = SQLiteStorage.get_logs("hessalign", name)
found = [[row["step"], row["accuracy/north/out"]] for row in rows if "accuracy/north/out" in row]
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", READ_BACK)
def test_what_was_written_offline_is_read_back_by_the_trackers_own_library(name: str, tmp_path: Path) -> None:
    """In processes of their own, as these libraries change much of the one that they are in."""
    pytest.importorskip(name)
    tiny_features(tmp_path / "f.safetensors")
    out = tmp_path / "run"
    command = [
        *(sys.executable, "-m", "hessalign", "train", "--dataset", tmp_path / "f.safetensors", *FEATURES),
        *("--steps", "25", "--evaluate-every", "10", "--out", out, "--track", name, "--json"),
    ]
    environment = {**os.environ, "no_proxy": "*"}
    ran = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "given up" not in ran.stderr, ran.stderr
    records = read_records(out)
    assert json.loads(ran.stdout) == records[-1]
    before = f"import json\nfrom pathlib import Path\nout = Path({str(out)!r})"
    code = f"{before}\n{READ_BACK[name]}\nprint(json.dumps(found))"
    read = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    found = json.loads(read.stdout.splitlines()[-1])
    expected = [[record["step"], record["accuracies"]["north"]["out"]] for record in records]
    assert [step for step, _ in found] == [step for step, _ in expected] == [0, 10, 20, 24]
    assert [value for _, value in found] == pytest.approx([value for _, value in expected])
