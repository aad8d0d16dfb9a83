"""``hessalign sweep`` on frozen features: runs that are trained together by themselves."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from hessalign.algorithms import algorithm_names, get_algorithm
from hessalign.datasets.features_file import save_features
from tests.cli.command import hessalign, start_process, words
from tests.training.tiny_features import flat, tiny_features

SHORT = ["--steps", "12", "--evaluate-every", "8", "--set", "batch_size=8", "--device", "cpu"]
GRID = [*SHORT, "--algorithms", "fishr,hgp,mldg", "--trials", "1", "--hparams", "1", "--targets", "singles"]


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "tiny.safetensors"
    tiny_features(path, views=2)
    return path


def sweep(features: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return hessalign("sweep", "--datasets", features, *arguments)


def runs(out: Path) -> dict[str, Path]:
    return {path.parent.name: path.parent for path in out.glob("runs/*/done")}


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same(first: Path, second: Path) -> None:
    """Record for record: accuracies exactly, other numbers but for rounding."""
    assert runs(first).keys() == runs(second).keys()
    for name, folder in runs(first).items():
        other = runs(second)[name]
        assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in other.iterdir())
        assert (folder / "spec.json").read_bytes() == (other / "spec.json").read_bytes()
        for mine, theirs in zip(records(folder), records(other), strict=True):
            assert mine.keys() == theirs.keys()
            assert mine["accuracies"] == theirs["accuracies"]
            assert mine.get("undefined") == theirs.get("undefined")
            assert flat(mine["metrics"]) == pytest.approx(flat(theirs["metrics"]), rel=1e-5, abs=1e-5)
            for key in mine.keys() - {"accuracies", "metrics", "undefined", "step_seconds"}:
                assert mine[key] == pytest.approx(theirs[key], rel=1e-5, abs=1e-5), key


@pytest.fixture(scope="module")
def together(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("together")
    result = sweep(features, *GRID, "--jobs", "1", "--out", out)
    assert result.returncode == 0, result.stderr
    assert "[12/12]" in result.stderr
    return out


def test_a_sweep_together_is_the_sweep_one_by_one(features: Path, together: Path, tmp_path: Path) -> None:
    result = sweep(features, *GRID, "--jobs", "1", "--together", "1", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(runs(tmp_path)) == 12  # 3 algorithms, 4 targets
    assert_same(together, tmp_path)


@pytest.mark.parametrize("together", ["60", "1"])
def test_a_dry_run_estimates_and_writes_nothing(features: Path, tmp_path: Path, together: str) -> None:
    out = tmp_path / "new"
    result = sweep(features, *GRID, "--together", together, "--out", out, "--dry-run", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert [row["runs"] for row in document["rows"]] == [4, 4, 4]
    assert "sets in after the end of most runs of: fishr (anneal_steps, 4 of 4 runs)" in result.stderr
    assert all(row["seconds"] > 0 and row["disk_bytes"] > 0 for row in document["rows"])
    assert not out.exists()


def test_finished_runs_are_skipped(features: Path, together: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in together.glob("runs/*/*")}
    again = sweep(features, *GRID, "--json", "--out", together)
    assert again.returncode == 0, again.stderr
    document = json.loads(again.stdout)
    assert (document["runs"], document["skipped"], document["finished"]) == (12, 12, 0)
    assert {path: path.stat().st_mtime_ns for path in together.glob("runs/*/*")} == before


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills")
def test_a_killed_sweep_goes_on_and_ends_the_same(features: Path, together: Path, tmp_path: Path) -> None:
    process = start_process(
        *("sweep", "--datasets", features, *GRID, "--jobs", "1", "--together", "4", "--out", tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(runs(tmp_path)) < 4:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait(timeout=60)
    done = len(runs(tmp_path))
    assert 4 <= done < 12
    again = sweep(features, *GRID, "--jobs", "2", "--json", "--out", tmp_path)
    assert again.returncode == 0, again.stderr
    document = json.loads(again.stdout)
    assert document["finished"] + document["skipped"] == 12
    assert document["skipped"] >= done
    assert_same(together, tmp_path)


def test_all_leaves_out_what_has_no_use_for_features(features: Path, tmp_path: Path) -> None:
    arguments = [*SHORT, "--algorithms", "all", "--dry-run", "--json", "--out", tmp_path / "new"]
    result = sweep(features, *arguments, "--steps", "2", "--together", "1")
    assert result.returncode == 0, result.stderr
    left_out = [
        name
        for name in algorithm_names()
        if get_algorithm(name).needs_images or get_algorithm(name).needs_trainable_backbone
    ]
    assert {"arm", "cdann", "dann", "sagnet", "trm", "urm"} < {*left_out}
    said = f"Left out, since they have no use for such data and backbone: {', '.join(left_out)}."
    assert said in result.stderr
    rows = {row["algorithm"] for row in json.loads(result.stdout)["rows"]}
    assert {"erm", "hgp", "mtl"} <= rows
    assert rows == {*algorithm_names()} - {*left_out}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--algorithms", "erm,dann"], "--algorithms: dann trains the backbone, and 'identity' has nothing"),
        (["--backbone", "resnet18"], "backbone: 'resnet18' does not take the dataset's inputs"),
        (["--together", "0"], "'--together': must be a whole number of at least 1, got 0"),
        (["--set", "batch_size=64"], "batch_size: domain 'south' has 32 training samples, fewer than the 64"),
    ],
)
def test_bad_input_is_one_sentence(features: Path, tmp_path: Path, changes: list[str], message: str) -> None:
    given = [word for word in GRID if "--set" not in changes or word not in ("--set", "batch_size=8")]
    result = sweep(features, *given, "--out", tmp_path / "new", *changes)
    assert result.returncode == 2, result.stderr
    assert message in words(result.stderr)
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "new").exists()


def test_a_file_of_one_domain_is_refused(tmp_path: Path) -> None:
    whole = tiny_features(tmp_path / "whole.safetensors").domains[0]
    save_features(
        tmp_path / "one.safetensors",
        whole.plain.table[:, 0],
        whole.targets,
        whole.targets.new_zeros(len(whole)),
    )
    result = sweep(tmp_path / "one.safetensors", *GRID, "--out", tmp_path / "new")
    assert result.returncode == 2, result.stderr
    assert "targets: 'singles' needs at least 2 domains and features_file has 1" in words(result.stderr)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("harm", ["cut", "changed"])
def test_a_harmed_file_is_refused(features: Path, tmp_path: Path, harm: str) -> None:
    content = bytearray(features.read_bytes())
    if harm == "cut":
        del content[-100:]
    else:
        content[-100] ^= 1
    harmed = tmp_path / "harmed.safetensors"
    harmed.write_bytes(content)
    result = sweep(harmed, *GRID, "--out", tmp_path / "new")
    assert result.returncode == 2, result.stderr
    problem = {"cut": "it is cut short", "changed": "its content was changed after it was written"}[harm]
    assert problem in words(result.stderr)
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "new").exists()
