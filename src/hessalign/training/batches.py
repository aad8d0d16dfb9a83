"""What a run trains on: domain-balanced batches, each a function of the seed and the step alone.

Nothing about the past has to be remembered: a run that resumes at step ``t`` asks for the batches from there
on and gets what the uninterrupted run would have got, whatever the number of workers and of processes. Each
sample is drawn from a seed of its own, in this process or in workers.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from hessalign.algorithms import DomainBatch
from hessalign.datasets.base import BatchedSamples
from hessalign.loop import draw_samples
from hessalign.training.processes import rows_of
from hessalign.training.seeds import seeded

Sample = tuple[Tensor, int]
Loaded = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Key:
    """One sample of one batch.

    Attributes:
        domain: Which dataset it comes from.
        index: In that dataset.
        seed: Of its augmentation.
    """

    domain: int
    index: int
    seed: int


def check_sizes(names: Sequence[str], sizes: Sequence[int], samples_per_domain: int) -> None:
    """Refuse source domains that cannot fill their share of a batch.

    Raises:
        ValueError: Naming the domain, its size and the batch size.
    """
    for name, size in zip(names, sizes, strict=True):
        if size < samples_per_domain:
            raise ValueError(
                f"batch_size: domain {name!r} has {size} training samples, fewer than the "
                f"{samples_per_domain} each domain gives to a batch; allowed are 1 to {min(sizes)}"
            )


def domain_batches(
    datasets: Sequence[Dataset[Sample]],
    samples_per_domain: int,
    seed: int,
    steps: range,
    workers: int = 0,
    rank: int = 0,
    count: int = 1,
) -> Iterator[DomainBatch]:
    """The batches of some steps of a run, or one process's equal shard of each.

    A batch holds ``samples_per_domain`` samples of each domain, drawn with replacement as in DomainBed.
    Indices depend on seed, step and domain; random numbers of augmentation on these and the sample's place.

    Args:
        datasets: One for each source domain.
        samples_per_domain: ``B``.
        seed: Of the run.
        steps: Which steps.
        workers: Processes that load samples; 0 loads them here.
        rank: Which process's shard.
        count: Number of processes that share a batch.

    Yields:
        A batch for each step.

    Raises:
        OSError: If a sample cannot be read.
    """
    sizes = [len(dataset) for dataset in datasets]  # type: ignore[arg-type]
    shards = (_shard(_keys(sizes, samples_per_domain, seed, step), rank, count) for step in steps)
    for inputs, targets, domains in load(datasets, shards, workers):
        yield DomainBatch.balanced(inputs, targets, domains, len(datasets))


def load(
    datasets: Sequence[Dataset[Sample]], batches: Iterable[list[Key]], workers: int = 0
) -> Iterator[Loaded]:
    """Load batches; the global random state is left as it was.

    Samples in memory are read many at once, here; all others one by one.

    Args:
        datasets: By domain.
        batches: Which samples.
        workers: Processes that load samples; 0 loads them here.

    Yields:
        Inputs, targets and domains of each batch.

    Raises:
        OSError: If a sample cannot be read, in the words of the dataset, wherever it was loaded.
    """
    held = [found for dataset in datasets if (found := in_memory(dataset)) is not None]
    if len(held) == len(datasets):
        yield from (_take(held, batch) for batch in batches)
        return
    loader = DataLoader(
        _SeededSamples(datasets),
        batch_sampler=batches,
        collate_fn=_collate,
        num_workers=workers,
        # A loader draws a seed when it starts; from the global generator it would shift all later draws of a
        # resumed run.
        generator=torch.Generator(),
    )
    for loaded in loader:
        if isinstance(loaded, OSError):
            raise loaded
        yield loaded


@dataclass(frozen=True, eq=False)
class InMemory:
    """Some of the samples that lie in memory.

    Attributes:
        samples: All of them.
        indices: Which of them, ``(n,)``, int64.
    """

    samples: BatchedSamples
    indices: Tensor


def in_memory(dataset: Dataset[Sample]) -> InMemory | None:
    """The part of samples in memory that a dataset is, or None where samples must be read one by one."""
    if isinstance(dataset, Subset) and isinstance(dataset.dataset, BatchedSamples):
        return InMemory(dataset.dataset, torch.as_tensor(dataset.indices, dtype=torch.long))
    return None


class _SeededSamples(Dataset[tuple[int, Sample] | OSError]):
    """Samples that are augmented from their own seeds.

    What cannot be read is handed on as a value, for a loader would add a worker's traceback to it.
    """

    def __init__(self, datasets: Sequence[Dataset[Sample]]) -> None:
        self.datasets = datasets

    def __getitem__(self, key: Key) -> tuple[int, Sample] | OSError:
        with seeded(key.seed):
            try:
                return key.domain, self.datasets[key.domain][key.index]
            except OSError as error:
                return error


def _collate(samples: list[tuple[int, Sample] | OSError]) -> Loaded | OSError:
    read = []
    for sample in samples:
        if isinstance(sample, OSError):
            return sample
        read.append(sample)
    inputs, targets = default_collate([sample for _, sample in read])  # in a worker, into shared memory
    return inputs, targets, torch.tensor([domain for domain, _ in read])


def _take(held: Sequence[InMemory], batch: list[Key]) -> Loaded:
    """A batch, one read for each run of samples of one domain."""
    inputs, targets = [], []
    for domain, keys in groupby(batch, key=lambda key: key.domain):
        places, seeds = torch.tensor([(key.index, key.seed) for key in keys]).unbind(1)
        indices = held[domain].indices[places]
        inputs.append(held[domain].samples.take(indices, seeds))
        targets.append(held[domain].samples.targets[indices])
    return torch.cat(inputs), torch.cat(targets), torch.tensor([key.domain for key in batch])


def _keys(sizes: Sequence[int], samples_per_domain: int, seed: int, step: int) -> list[Key]:
    """The samples of a step, sorted by domain."""
    keys = []
    for domain, size in enumerate(sizes):
        drawn = draw_samples(seed, step, domain, size, samples_per_domain)
        indices, seeds = (values.tolist() for values in drawn)
        keys += [Key(domain, *pair) for pair in zip(indices, seeds, strict=True)]
    return keys


def _shard(keys: list[Key], rank: int, count: int) -> list[Key]:
    return [keys[row] for row in rows_of(rank, count, len(keys)).tolist()]
