"""Domain-balanced batches, each a function of the seed and the step alone.

Nothing about the past has to be remembered: a run that resumes at step ``t`` asks for the batches from there
on and gets what the uninterrupted run would have got, whatever the number of workers and of processes.
"""

from collections.abc import Iterator, Sequence

from torch.utils.data import Dataset

from hessalign.algorithms import DomainBatch
from hessalign.loop import draw_samples
from hessalign.training.loading import Key, Sample, load
from hessalign.training.spread import rows_of


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
    """The batches of some steps of a run, or one process's equal share of each.

    A batch holds ``samples_per_domain`` samples of each domain, drawn with replacement as in DomainBed.
    Indices depend on seed, step and domain; random numbers of augmentation on these and the sample's place.

    Args:
        datasets: One for each source domain.
        samples_per_domain: ``B``.
        seed: Of the run.
        steps: Which steps.
        workers: Processes that load samples; 0 loads them here.
        rank: Which process's share.
        count: Number of processes that share a batch.

    Raises:
        OSError: If a sample cannot be read.
    """
    sizes = [len(dataset) for dataset in datasets]  # type: ignore[arg-type]
    shares = (_share(_keys(sizes, samples_per_domain, seed, step), rank, count) for step in steps)
    for inputs, targets, domains in load(datasets, shares, workers):
        yield DomainBatch.balanced(inputs, targets, domains, len(datasets))


def _keys(sizes: Sequence[int], samples_per_domain: int, seed: int, step: int) -> list[Key]:
    """The samples of a step, sorted by domain."""
    keys = []
    for domain, size in enumerate(sizes):
        indices, seeds = (
            part.tolist() for part in draw_samples(seed, step, domain, size, samples_per_domain)
        )
        keys += [Key(domain, *pair) for pair in zip(indices, seeds, strict=True)]
    return keys


def _share(keys: list[Key], rank: int, count: int) -> list[Key]:
    return [keys[row] for row in rows_of(rank, count, len(keys)).tolist()]
