"""Settings of all tests."""

import os
import signal

import pytest
import torch
from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=10, print_blob=True)
settings.register_profile("ci", deadline=None, max_examples=30, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores, so each, with its subprocesses, has one
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell's background jobs ignore Ctrl-C, and so would the commands that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _devices() -> list[str]:
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=_devices())
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device of this machine."""
    return torch.device(request.param)
