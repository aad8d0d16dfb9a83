"""Timing of alternatives side by side, so that a change of the machine's speed meets all of them."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Comparison:
    """One ratio of a table.

    Attributes:
        what: What was timed.
        against: What it was compared with.
        seconds: Median time of the former.
        baseline_seconds: Median time of the latter.
        quotient: How the ratio is read: ``"faster"`` (baseline / time) or ``"cost"`` (time / baseline).
        target: Value the project aims at, if there is one.
    """

    what: str
    against: str
    seconds: float
    baseline_seconds: float
    quotient: str
    target: float | None = None

    @property
    def ratio(self) -> float:
        """The quotient as a number."""
        forwards = self.seconds / self.baseline_seconds
        return forwards if self.quotient == "cost" else 1 / forwards

    def row(self) -> str:
        """A row of a Markdown table."""
        word = "the time" if self.quotient == "cost" else "faster"
        return (
            f"| {self.what} | {self.against} | {_milliseconds(self.seconds)} | "
            f"{_milliseconds(self.baseline_seconds)} | {self.ratio:.2f}× {word} | {self._verdict()} |"
        )

    def _verdict(self) -> str:
        if self.target is None:
            return "–"
        if self.quotient == "cost":
            return f"≤ {self.target:g}× {'reached' if self.ratio <= self.target else 'missed'}"
        return f"≥ {self.target:g}× {'reached' if self.ratio >= self.target else 'missed'}"


HEADER = "| what | against | time [ms] | baseline [ms] | ratio | target |\n|---|---|---:|---:|---:|---|"


def median_seconds(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median time of each function; every round calls all of them in turn.

    Args:
        functions: By name.
        rounds: How often each is timed.
        warm_up: Rounds before that.
        clock: ``time.process_time`` for processor seconds, on which other work on the machine tells less.

    Returns:
        Seconds, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(warm_up + rounds):
        for name, function in functions.items():
            started = clock()
            function()
            if number >= warm_up:
                times[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in times.items()}


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch computes in one thread, so that a process's seconds are those of its work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g}" if seconds < 1 else f"{1000 * seconds:.0f}"
