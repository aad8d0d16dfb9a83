"""Batches with equally many samples of every domain, each a function of seed and step alone."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from hessalign.checks import require_flag, require_whole
from hessalign.exceptions import UntrustworthyWarning
from hessalign.inputs import read_domains

Indices = NDArray[np.int64]


def draw_samples(seed: int, step: int, domain: int, size: int, count: int) -> tuple[Indices, Indices]:
    """Which samples of a domain a step's batch holds, and what the augmentation of each depends on.

    Args:
        seed: Of the run.
        step: The step.
        domain: Place of the domain among the source domains.
        size: Samples of the domain.
        count: Samples to draw, with replacement.

    Returns:
        Indices and seeds, ``(count,)`` each, int64.

    Examples:
        >>> from hessalign.loop import draw_samples
        >>> indices, seeds = draw_samples(seed=0, step=7, domain=1, size=100, count=4)
        >>> again, _ = draw_samples(seed=0, step=7, domain=1, size=100, count=4)
        >>> (indices == again).all()
        np.True_
    """
    random = np.random.default_rng([seed, step, domain])
    return random.integers(size, size=count), random.integers(2**63, size=count)


class DomainBalancedSampler(Sampler[list[int]]):
    """Batches of ``samples_per_domain`` samples of each domain, for ``DataLoader(batch_sampler=...)``.

    A domain of three samples counts as much as one of three thousand, as the mean over domains of an
    alignment penalty does, and no batch lacks a domain. A batch depends on the seed and its number only:
    a run that goes on at step ``t`` with ``first_step=t`` sees what the uninterrupted run would have seen.
    With replacement the draws are those of ``hessalign train``. A domain with fewer samples than its share of
    a batch repeats some in every batch, which gives a warning.

    Args:
        domains: Domain id of each sample of the dataset, ``(n,)``, integers or strings, in any order.
        samples_per_domain: ``B``; a batch holds ``B`` times the number of domains.
        batches: Batches of one pass of the loader; by default as many as ``n`` samples fill, at least 1.
        replacement: Draw each batch independently (default, as DomainBed does); otherwise a domain's samples
            all come once before one comes again.
        seed: Of the draws; default 0.
        first_step: Number of the first batch; default 0. A second pass goes on where the first ended.
        rank: Of this process, where several share each batch; default 0. Every process must make its sampler
            with the same seed.
        world_size: Number of processes that share each batch: ``samples_per_domain`` is what one gets.

    Raises:
        ValueError: If an argument is out of range.

    Examples:
        >>> import torch
        >>> from hessalign.loop import DomainBalancedSampler
        >>> sampler = DomainBalancedSampler(["a", "a", "a", "b", "b"], samples_per_domain=2, seed=1)
        >>> [len(batch) for batch in sampler]
        [4]
        >>> data = torch.utils.data.TensorDataset(torch.arange(5))
        >>> loader = torch.utils.data.DataLoader(data, batch_sampler=sampler)
    """

    def __init__(
        self,
        domains: Any,
        samples_per_domain: int,
        *,
        batches: int | None = None,
        replacement: bool = True,
        seed: int = 0,
        first_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        samples = len(domains)
        if samples == 0:
            raise ValueError("domains: at least one sample is needed, got none")
        read = read_domains("domains", domains, samples)
        self.samples_per_domain = require_whole("samples_per_domain", samples_per_domain, least=1)
        self.world_size = require_whole("world_size", world_size, least=1)
        self.rank = require_whole("rank", rank, least=0, most=world_size - 1)
        self.replacement = require_flag("replacement", replacement)
        self.seed = require_whole("seed", seed, least=0)
        self.step = require_whole("first_step", first_step, least=0)
        self._members: Sequence[Indices] = [
            np.flatnonzero(read.codes == code).astype(np.int64) for code in range(len(read.names))
        ]
        self._warn_of_repeats(read.names.tolist())
        in_batch = self.samples_per_domain * self.world_size * len(self._members)
        if batches is None:
            self.batches = max(1, samples // in_batch)
        else:
            self.batches = require_whole("batches", batches, least=1, otherwise="None or ")

    def __len__(self) -> int:
        """Batches of one pass."""
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        """The indices of each batch, sorted by domain in ascending order of the ids."""
        first, self.step = self.step, self.step + self.batches
        for step in range(first, first + self.batches):
            yield [
                int(index)
                for domain, members in enumerate(self._members)
                for index in members[self._draw(step, domain, len(members))]
            ]

    def _warn_of_repeats(self, names: Sequence[Any]) -> None:
        share = self.samples_per_domain * self.world_size
        small = [place for place, members in enumerate(self._members) if len(members) < share]
        if small:
            first = small[0]
            others = f" and {len(small) - 1} others have" if len(small) > 1 else " has"
            warnings.warn(
                f"samples_per_domain: domain {names[first]!r}{others} fewer samples "
                f"({len(self._members[first])}) than each domain gives to a batch ({share}): every batch "
                "repeats some of them, and statistics within a domain count these twice",
                UntrustworthyWarning,
                stacklevel=3,
            )

    def _draw(self, step: int, domain: int, size: int) -> Indices:
        count = self.samples_per_domain * self.world_size
        own = slice(self.rank * self.samples_per_domain, (self.rank + 1) * self.samples_per_domain)
        if self.replacement:
            return draw_samples(self.seed, step, domain, size, count)[0][own]
        places = np.arange(step * count, (step + 1) * count)[own]
        rounds = {
            number: np.random.default_rng([self.seed, int(number), domain]).permutation(size)
            for number in np.unique(places // size)
        }
        return np.array([rounds[place // size][place % size] for place in places], dtype=np.int64)
