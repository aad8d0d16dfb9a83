"""What is shown of a sweep."""

from pathlib import Path

import pytest
from rich.console import Console

from hessalign.benchmark.engines import LocalEngine
from hessalign.benchmark.job import Job, Outcome
from hessalign.cli.sweep_overview import Overview, duration
from hessalign.datasets.registry import DataSource
from hessalign.runs import append_record
from hessalign.training import Machine
from tests.training.tiny_domains import NAMES, tiny_spec


def job(out: Path, algorithm: str, seed: int) -> Job:
    spec = tiny_spec(algorithm=algorithm, seed=seed, hparams={"lr": 1e-3, "batch_size": 6})
    return Job(spec, DataSource("tiny"), out, Machine())


def finish(done: Job, out_accuracies: tuple[float, float, float]) -> Outcome:
    """As if the run had been done, with one evaluation."""
    done.folder.mkdir(parents=True)
    accuracies = {name: {"in": 0.1, "out": value} for name, value in zip(NAMES, out_accuracies, strict=True)}
    append_record(done.folder, {"step": 11, "accuracies": accuracies})
    return Outcome(done, "finished", seconds=30.0)


def test_counts_and_the_best_of_each_algorithm(tmp_path: Path) -> None:
    jobs = [job(tmp_path, algorithm, seed) for algorithm in ("erm", "hgp") for seed in range(3)]
    overview = Overview(jobs, LocalEngine(workers=1, threads=1))
    assert overview.seconds_left() is None
    overview.add(finish(jobs[0], (0.5, 0.7, 1.0)))  # domain 2 is the target
    overview.add(finish(jobs[1], (0.8, 0.6, 0.0)))
    overview.add(Outcome(jobs[3], "failed", "stumbled"))
    console = Console(width=200)
    with console.capture() as capture:
        console.print(overview)
    text = capture.get()
    assert "2 done, 0 running, 1 failed, 3 left of 6 runs; " in text
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    assert rows == [["tiny", "erm", "3", "2", "0", "70.0"], ["tiny", "hgp", "3", "0", "1", "–"]]
    document = overview.document()
    assert (document["runs"], document["finished"], document["failed"]) == (6, 2, 1)
    assert document["failures"][0]["error"] == "stumbled"
    assert document["rows"][0]["best_validation"] == pytest.approx(0.7)


def test_time_left_follows_the_work(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "erm", seed) for seed in range(4)]
    overview = Overview(jobs, LocalEngine(workers=1, threads=1))
    overview.add(Outcome(jobs[0], "skipped"))  # was done before and tells nothing of the speed
    overview.add(finish(jobs[1], (0.5, 0.5, 0.5)))
    assert overview.seconds_left() == pytest.approx(60)
    with (console := Console(width=80)).capture() as capture:
        console.print(overview.table())
    assert "1 of 4 runs done before" in capture.get()
    assert (
        overview.line(Outcome(jobs[1], "finished"))
        == "[2/4] erm on tiny, target 2, trial 0, draw 0: finished; 1.0 min to go"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "unknown time"), (59, "59 s"), (90, "1.5 min"), (9000, "2.5 h"), (2e5, "2.3 days")],
)
def test_times_are_for_people(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
