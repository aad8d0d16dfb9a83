"""Processes that start within milliseconds: forked from a server that has imported PyTorch once."""

import random
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess

METHOD = "forkserver"
_server = get_context(METHOD)
_server.set_forkserver_preload(["pytest", "hessalign.training.trainer"])  # the package itself is lazy


def start(function: Callable[..., object], *arguments: object) -> BaseProcess:
    """Start a process that calls a function of a module."""
    process = _server.Process(target=function, args=arguments)
    process.start()
    return process


def run_whole(begin: Callable[[], BaseProcess], records: Callable[[], int]) -> float:
    """Wait until a run has ended, and tell how many seconds each of its records took."""
    process, first = begin(), None
    while process.is_alive():
        if first is None and records():
            first = time.perf_counter()
        process.join(timeout=0.005)
    assert process.exitcode == 0
    return 0.0 if first is None else (time.perf_counter() - first) / records()


def run_in_parts(
    begin: Callable[[], BaseProcess], records: Callable[[], int], kills: int, pace: float
) -> None:
    """Kill a run at random moments, each within two records' time of a new one, and let it end then.

    Args:
        begin: Starts the run, or lets it go on.
        records: How many records it has left so far; at least six for each kill when it ends.
        kills: How often it is killed.
        pace: Seconds that a record takes on this machine, as ``run_whole`` tells.
    """
    moments = random.Random(0)
    for kill in range(kills):
        process, before = begin(), records()
        while process.is_alive() and records() <= before:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 2 * pace))
        assert process.is_alive(), f"the run ended before its kill {kill + 1} of {kills}"
        process.kill()
        process.join()
    last = begin()
    last.join(timeout=300)
    assert last.exitcode == 0
