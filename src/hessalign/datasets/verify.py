"""Whether a copy of a dataset is whole: counts against the published ones, every sample read."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from hessalign.datasets.base import DomainDataset


@dataclass(frozen=True)
class VerifyReport:
    """What was found.

    Attributes:
        dataset: Name of the dataset.
        counts: Number of samples, by domain and class name; 0 where a domain lacks a class.
        published_counts: Published number of samples of each domain; empty where not known.
        published_totals: Published totals, any of which is right; empty where not known.
        empty_classes: ``domain/class`` of each class that a domain lacks, which need not be a fault.
        unreadable: One message for each sample that cannot be read, naming its file.
        problems: One sentence for each fault, unreadable samples aside.
    """

    dataset: str
    counts: dict[str, dict[str, int]]
    published_counts: dict[str, int]
    published_totals: tuple[int, ...]
    empty_classes: tuple[str, ...]
    unreadable: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.unreadable and not self.problems

    @property
    def total(self) -> int:
        """Number of samples."""
        return sum(sum(by_class.values()) for by_class in self.counts.values())


def verify(dataset: DomainDataset, on_sample: Callable[[], None] | None = None) -> VerifyReport:
    """Count the samples of a dataset and read every one of them.

    Args:
        dataset: Any.
        on_sample: Called after each sample, to show progress.
    """
    published = dataset.expected_counts
    counts = count_samples(dataset)
    return VerifyReport(
        dataset=dataset.name,
        counts=counts,
        published_counts=dict(published.by_domain) if published else {},
        published_totals=published.totals if published else (),
        empty_classes=tuple(
            f"{domain}/{class_name}"
            for domain, by_class in counts.items()
            for class_name, count in by_class.items()
            if count == 0
        ),
        unreadable=_unreadable(dataset, on_sample),
        problems=tuple(_problems(dataset, counts)),
    )


def count_samples(dataset: DomainDataset) -> dict[str, dict[str, int]]:
    """Number of samples, by domain and class name."""
    classes = len(dataset.class_names)
    return {
        domain.name: dict(
            zip(dataset.class_names, torch.bincount(domain.targets, minlength=classes).tolist(), strict=True)
        )
        for domain in dataset.domains
    }


def _unreadable(dataset: DomainDataset, on_sample: Callable[[], None] | None) -> tuple[str, ...]:
    messages = []
    for domain in dataset.domains:
        for index in range(len(domain)):
            try:
                domain.plain.check(index)
            except OSError as error:
                messages.append(str(error))
            if on_sample is not None:
                on_sample()
    return tuple(messages)


def _problems(dataset: DomainDataset, counts: dict[str, dict[str, int]]) -> list[str]:
    problems = []
    if dataset.class_count not in (None, len(dataset.class_names)):
        problems.append(f"{len(dataset.class_names)} classes; published are {dataset.class_count}")
    published = dataset.expected_counts
    if published is None:
        return problems
    sizes = {domain: sum(by_class.values()) for domain, by_class in counts.items()}
    for domain, expected in published.by_domain.items():
        if sizes.get(domain, 0) != expected:
            problems.append(f"{domain}: {sizes.get(domain, 0)} samples; published are {expected}")
    total = sum(sizes.values())
    if total not in published.totals:
        allowed = " or ".join(str(number) for number in published.totals)
        problems.append(f"{total} samples in all; published are {allowed}")
    return problems
