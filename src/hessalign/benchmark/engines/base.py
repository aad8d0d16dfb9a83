"""What an engine is."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from hessalign.benchmark.job import Job, Outcome


class Engine(Protocol):
    """Does groups of jobs, several at a time, failed ones again as often as it was told."""

    def perform(self, groups: Sequence[Sequence[Job]]) -> Iterator[Outcome]:
        """The outcome of each job of each group, as they come in."""

    def running(self) -> list[Job]:
        """The jobs that are being done now, as far as is known."""

    def close(self) -> None:
        """Stop at once; runs that are being done can be resumed from their checkpoints."""
