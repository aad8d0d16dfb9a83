"""Restarts of the same seeds on a processor and on a GPU, judged as was written down before.

What is asked, and what would answer it, stands in ``results/on_a_gpu/README.md``.
"""

from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from hessalign.experiments.colored_mnist import RecordStore, RestartRecord, group_restarts
from papers.colored_mnist.evidence import ROOT, Evidence, ended
from papers.colored_mnist.intervals import Interval, mean_of
from papers.colored_mnist.tables import TITLES, grid, place

STORE = RecordStore(ROOT / "results" / "on_a_gpu")
HARMLESS = 0.2
"""Points; two intervals within these limits answer that the device does not matter."""

Pair = tuple[RestartRecord, RestartRecord]
"""The same restart on a GPU and on a processor."""


@dataclass(frozen=True)
class Devices:
    """The same seeds on both devices.

    Attributes:
        pairs: On a GPU, and on a processor.
        train: GPU minus processor, train accuracy in points: the mean difference over pairs.
        target: The same of target accuracy.
        on_gpu: Number of restarts of the tables and sweeps that were run on a GPU.
        in_all: Number of restarts of the tables and sweeps.
    """

    pairs: tuple[Pair, ...]
    train: Interval
    target: Interval
    on_gpu: int
    in_all: int

    @property
    def matters(self) -> bool:
        """Whether the device does: whether an interval leaves out 0 and the limits of what is harmless."""
        return not all(_is_harmless(found) for found in (self.train, self.target))

    @property
    def largest(self) -> Pair:
        """The pair whose accuracies differ most."""
        return max(self.pairs, key=apart)

    @property
    def rest(self) -> list[Pair]:
        """Pairs of other configurations than the largest difference has."""
        configuration = self.largest[0].spec.configuration()
        return [pair for pair in self.pairs if pair[0].spec.configuration() != configuration]


def apart(pair: Pair) -> float:
    """By how many points accuracies differ at the last step, train or target, whichever more."""
    return max(abs(points) for points in _differences(pair))


def swing(record: RestartRecord) -> float:
    """Mean change of the target accuracy, in points, between recorded steps of the second half."""
    late = [metrics.target_accuracy for metrics in record.history if 2 * metrics.step >= record.spec.steps]
    return fmean(abs(after - before) for before, after in pairwise(late))


def devices(evidence: Evidence) -> Devices:
    """The records of both devices.

    Args:
        evidence: Has those on processors.

    Returns:
        All pairs, and what they say.

    Raises:
        ValueError: If a restart is not of a GPU, or has no record of its seed on a processor.
    """
    shown = [record for group in evidence.groups for record in group]
    processors = {record.spec: record for record in shown if record.environment["device"] == "cpu"}
    pairs = []
    for record in STORE.load_all():
        if record.environment["device"] == "cpu" or record.spec not in processors:
            raise ValueError(
                f"{STORE.path(record.spec).name}: must be of a GPU, and have a record of the same seed on a "
                "processor"
            )
        pairs.append((record, processors[record.spec]))
    differences = [_differences(pair) for pair in pairs]
    return Devices(
        tuple(pairs),
        train=mean_of([train for train, _ in differences]),
        target=mean_of([target for _, target in differences]),
        on_gpu=sum(record.environment["device"] != "cpu" for record in shown),
        in_all=len(shown),
    )


def devices_table(found: Devices) -> str:
    """A row for each configuration: GPU minus processor, seed by seed."""
    on_processors = {ours.spec: theirs for ours, theirs in found.pairs}
    rows = []
    groups = group_restarts(ours for ours, _ in found.pairs)
    for group in sorted(groups, key=lambda group: list(TITLES).index(group[0].spec.split)):
        run = ended(group)
        differences = [_differences((record, on_processors[record.spec])) for record in group]
        train, target = (
            ", ".join(f"{points:+z.2f}" for points in of) for of in zip(*differences, strict=True)
        )
        seeds = ", ".join(str(record.spec.seed) for record in group)
        rows.append((place(group[0].spec.setting()), run.row.label, seeds, train, target))
    return grid("Table | Method | >Seeds | >Train | >Target", rows)


def _differences(pair: Pair) -> tuple[float, float]:
    """GPU minus processor: train and target accuracy."""
    ours, theirs = (record.final for record in pair)
    return (
        ours.source_accuracy - theirs.source_accuracy,
        ours.target_accuracy - theirs.target_accuracy,
    )


def _is_harmless(found: Interval) -> bool:
    return found.low <= 0 <= found.high or (found.low >= -HARMLESS and found.high <= HARMLESS)
