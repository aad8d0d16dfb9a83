"""The engine of local processes: killed workers, retries, and what it leaves behind."""

import multiprocessing
import os
import signal
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hessalign.benchmark.engines import LocalEngine
from hessalign.benchmark.job import Job, last_failure, perform
from hessalign.benchmark.protocol import RunConfig, SweepSpec
from hessalign.benchmark.sweep import perform_all
from hessalign.datasets import DomainDataset
from hessalign.datasets.registry import DataSource
from hessalign.training import Machine, read_records

MNIST = DataSource("colored_mnist")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    config = RunConfig(steps=12, evaluate_every=2, evaluation_samples=5, fixed={"batch_size": 4})
    sweep = SweepSpec(algorithms=("hgp",), trials=1, hparams=1, targets="singles", config=config)
    machine = Machine(accelerator="cpu")
    return Job(sweep.plan(MNIST.open(0))[0], MNIST, tmp_path / "sweep", machine)


def results(job: Job) -> list[dict]:
    return [{k: v for k, v in record.items() if k != "step_seconds"} for record in read_records(job.folder)]


def test_a_killed_workers_run_goes_on_and_ends_with_the_same_records(job: Job, tmp_path: Path) -> None:
    whole = Job(job.spec, MNIST, tmp_path / "whole", job.machine)
    (outcome,) = perform([whole])
    assert outcome.status == "finished"
    engine = LocalEngine(workers=1, threads=torch.get_num_threads(), retries=1)
    killed = threading.Event()

    def kill_when_under_way() -> None:
        while len(read_records(job.folder)) < 3:
            time.sleep(0.01)
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)
        killed.set()

    killer = threading.Thread(target=kill_when_under_way)
    killer.start()
    with closing(engine):
        (outcome,) = perform_all([job], engine, 1)
    killer.join()
    assert killed.is_set()
    assert outcome.status == "finished"
    assert results(job) == results(whole)
    assert last_failure(job) is None
    assert multiprocessing.active_children() == []


def test_a_run_that_kills_its_workers_is_given_up(job: Job) -> None:
    engine = LocalEngine(workers=1, threads=1, retries=1)
    stop = threading.Event()

    def kill_all() -> None:
        while not stop.wait(0.05):
            for worker in multiprocessing.active_children():
                worker.kill()

    killer = threading.Thread(target=kill_all)
    killer.start()
    with closing(engine):
        (outcome,) = perform_all([job], engine, 1)
    stop.set()
    killer.join()
    assert outcome.status == "failed"
    assert outcome.error.startswith("the worker process was killed by SIGKILL")
    failure = last_failure(job)
    assert failure is not None
    assert (failure.attempts, failure.traceback) == (2, "")


class Telling(DataSource):
    """Fails with what a worker is like."""

    def open(self, seed: int) -> DomainDataset:
        raise RuntimeError(f"{os.environ.get('TOLD')}, GPUs lost: {torch.cuda._is_in_bad_fork()}")


def test_a_worker_is_as_one_that_was_started_by_itself(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the environment of its start, not of what all are forked from, which has asked for no GPU.

    Whoever is forked from a process that has cannot use any.
    """
    telling = replace(job, source=Telling("colored_mnist"))
    for told in ("day", "night"):
        monkeypatch.setenv("TOLD", told)
        with closing(LocalEngine(workers=1, threads=1, retries=0)) as engine:
            (outcome,) = engine.perform([[telling]])
        assert outcome.error == f"RuntimeError: {told}, GPUs lost: False"
