"""Every engine leaves the same records of one sweep of twelve small runs."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch

from hessalign.benchmark.engines import LocalEngine, RayEngine
from hessalign.benchmark.job import Job, perform
from hessalign.benchmark.sweep import arrange, perform_all
from tests.benchmark.test_slurm import jobs_of, records
from tests.training.tiny_features import tiny_features


def twelve(folder: Path, out: str) -> list[Job]:
    """Eleven that are trained together, and one that must be trained alone."""
    return [*jobs_of(folder, out, 11), *jobs_of(folder, out, 1, "fish")]


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: LocalEngine(workers=2, threads=1), RayEngine], ids=["local", "ray"])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning")  # Ray's own
def test_an_engine_gives_the_records_of_runs_done_here(
    make: Callable[[], LocalEngine | RayEngine], tmp_path: Path, ray_alone: None
) -> None:
    """SLURM's does in test_slurm.py, with a task that is stopped and queued again."""
    tiny_features(tmp_path / "f.safetensors")
    jobs, here = twelve(tmp_path, "engine"), twelve(tmp_path, "here")
    with closing(make()) as engine:
        assert [outcome.status for outcome in perform_all(jobs, engine, 60)] == ["finished"] * 12
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for group in arrange(here, 60):
        perform(group)
    torch.set_num_threads(threads)
    assert records(jobs) == records(here)
