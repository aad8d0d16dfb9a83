"""Whether a dataset is whole and what it seems: counts against the published ones, every sample read."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from hessalign.datasets.base import DomainDataset
from hessalign.files import shown


@dataclass(frozen=True)
class FoundFile:
    """A file of a dataset.

    Attributes:
        path: Where it lies; what messages call it, where it is a row of a table.
        domain: Its domain's name.
        class_name: Its class.
    """

    path: str
    domain: str
    class_name: str


class EqualFiles:
    """Finds files of equal content among some, by SHA-256 of those whose size is not theirs alone.

    Args:
        paths: The files; one that cannot be found is left out.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        sizes = {path: size for path in paths if (size := _size(path)) is not None}
        counts = Counter(sizes[path] for path in paths if path in sizes)
        self._candidates = {path for path, size in sizes.items() if counts[size] > 1}
        self._by_digest: dict[bytes, list[FoundFile]] = {}

    def add(self, file: FoundFile) -> None:
        """Read a file, if another has its size."""
        if file.path not in self._candidates:
            return
        try:
            with open(file.path, "rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").digest()
        except OSError:
            return  # that it cannot be read is told elsewhere
        self._by_digest.setdefault(digest, []).append(file)

    def add_content(self, file: FoundFile, content: bytes) -> None:
        """Look at what a row holds."""
        self._by_digest.setdefault(hashlib.sha256(content).digest(), []).append(file)

    def groups(self) -> list[list[FoundFile]]:
        """Files of equal content, of what was added."""
        return [files for files in self._by_digest.values() if len(files) > 1]


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
        duplicates: Files of equal content in one domain, each group by its paths; need not be a fault.
        problems: One sentence for each fault, unreadable samples aside.
        across_domains: Files of equal content in several domains, each group by its paths: what is trained on
            is also tested on. A problem, but not in published data, which are what they are.
        conflicting: Files of equal content and different classes; likewise.
        left_out: Number of files among the data that are not read, by what they are; need not be a fault.
    """

    dataset: str
    counts: dict[str, dict[str, int]]
    published_counts: dict[str, int]
    published_totals: tuple[int, ...]
    empty_classes: tuple[str, ...]
    unreadable: tuple[str, ...]
    duplicates: tuple[tuple[str, ...], ...]
    problems: tuple[str, ...]
    across_domains: tuple[tuple[str, ...], ...] = ()
    conflicting: tuple[tuple[str, ...], ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.unreadable and not self.problems

    @property
    def total(self) -> int:
        """Number of samples."""
        return sum(sum(by_class.values()) for by_class in self.counts.values())


def verify(dataset: DomainDataset, on_sample: Callable[[], None] | None = None) -> VerifyReport:
    """Count the samples of a dataset, read every one of them, and find what is there twice or looks wrong.

    Args:
        dataset: Any.
        on_sample: Called after each sample, to show progress.

    Returns:
        What was found.
    """
    published = dataset.expected_counts
    counts = count_samples(dataset)
    unreadable, groups = _read(dataset, on_sample)
    duplicates = [own for group in groups for own in _by_domain(group).values() if len(own) > 1]
    across_domains = [group for group in groups if len({file.domain for file in group}) > 1]
    conflicting = [group for group in groups if len({file.class_name for file in group}) > 1]
    problems = [*count_problems(dataset, counts), *dataset.doubts]
    if published is None:
        problems += _equal_problems(across_domains, conflicting)
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
        unreadable=tuple(unreadable),
        duplicates=_paths(duplicates),
        problems=tuple(problems),
        across_domains=_paths(across_domains),
        conflicting=_paths(conflicting),
        left_out=dict(dataset.left_out),
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


def _read(
    dataset: DomainDataset, on_sample: Callable[[], None] | None
) -> tuple[list[str], list[list[FoundFile]]]:
    """What cannot be read, and which files are equal."""
    unreadable = []
    places = [(domain, index) for domain in dataset.domains for index in range(len(domain))]
    paths = [domain.plain.file_of(index) for domain, index in places]
    equal_files = EqualFiles([path for path in paths if path is not None])
    for (domain, index), path in zip(places, paths, strict=True):
        try:
            domain.plain.check(index)
        except OSError as error:
            unreadable.append(str(error) if path is not None else f"{domain.name}: {error}")
        class_name = dataset.class_names[int(domain.targets[index])]
        if path is not None:
            equal_files.add(FoundFile(path, domain.name, class_name))
        elif (content := domain.plain.content_of(index)) is not None:
            equal_files.add_content(FoundFile(content[0], domain.name, class_name), content[1])
        if on_sample is not None:
            on_sample()
    return unreadable, equal_files.groups()


def _by_domain(files: Sequence[FoundFile]) -> dict[str, list[FoundFile]]:
    found: dict[str, list[FoundFile]] = {}
    for file in files:
        found.setdefault(file.domain, []).append(file)
    return found


def _paths(groups: Sequence[Sequence[FoundFile]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(shown(file.path) for file in group) for group in groups)


def _equal_problems(
    across_domains: Sequence[Sequence[FoundFile]], conflicting: Sequence[Sequence[FoundFile]]
) -> list[str]:
    problems = []
    if across_domains:
        first = {file.domain: file for file in across_domains[0]}
        problems.append(
            f"{_images(across_domains)} in several domains, so that a target domain is trained on: "
            f"{_example(first)}"
        )
    if conflicting:
        first = {file.class_name: file for file in conflicting[0]}
        problems.append(f"{_images(conflicting)} in several classes: {_example(first)}")
    return problems


def _images(groups: Sequence[object]) -> str:
    return f"{len(groups):,} {'images are' if len(groups) > 1 else 'image is'}"


def _example(files: Mapping[str, FoundFile]) -> str:
    """Two files, which differ in what they are told by."""
    found = list(files.values())[:2]
    return " and ".join(f"{shown(file.path)} ({file.domain}, {file.class_name})" for file in found)


def count_problems(dataset: DomainDataset, counts: dict[str, dict[str, int]]) -> list[str]:
    """How numbers of samples and classes differ from the published ones, one sentence for each difference."""
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


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None
