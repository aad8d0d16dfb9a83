"""Settings of all tests."""

import os
import signal
from functools import cache

import pytest
import torch
import typer.testing
from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=10, print_blob=True)
settings.register_profile("ci", deadline=None, max_examples=30, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

if "PYTEST_XDIST_WORKER" in os.environ:  # each core has a worker, which keeps to it, its subprocesses too
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)

# Its runner builds all commands anew for each call, which takes longer than most calls.
typer.testing._get_command = cache(typer.testing._get_command)

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell's background jobs ignore Ctrl-C, and so would the commands that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Where there is no driver, no step of an optimizer looks for one, in tests that are no runs either."""
    if not torch.cuda.is_available():
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)


@pytest.hookimpl(tryfirst=True)  # before -m leaves the default cases out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the main job first, or it is what all others wait for; measure the default tests alone.

    Slow ones, properties and odd values go over the same lines with other values, and measuring costs a third
    of their time; tests of every algorithm that others measure are marked where they stand.
    """
    items.sort(key=lambda item: item.path.name != "test_main_job.py")
    for item in items:
        is_property = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        if item.get_closest_marker("slow") or is_property or "fuzz" in item.path.name:
            item.add_marker("no_cover")


def _devices() -> list[str]:
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=_devices())
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device of this machine."""
    return torch.device(request.param)
