"""What the processes of a run tell each other outside of the backbone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import nn

from hessalign.algorithms import DomainBatch
from hessalign.training.spread import gather, spread_backbones


@dataclass(frozen=True)
class Processes:
    """The processes that share each update of a run; one by default, which has nobody to talk to.

    Attributes:
        rank: Of this process.
        count: Number of processes.
        messages: Process group for what lies in main memory, where the default one is for GPUs.
    """

    rank: int = 0
    count: int = 1
    messages: Any = None

    @classmethod
    def of(cls, fabric: Fabric) -> "Processes":
        """The processes of a launched Fabric."""
        if fabric.world_size == 1:
            return cls()
        messages = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
        return cls(fabric.global_rank, fabric.world_size, messages)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def spread(self, algorithm: nn.Module) -> None:
        """Let the algorithm's backbones share their work; see [spread][hessalign.training.spread]."""
        if self.count > 1:
            spread_backbones(algorithm, self.rank, self.count)

    def whole(self, share: DomainBatch, rows: int) -> DomainBatch:
        """The whole batch of ``rows`` samples, from each process's share of it."""
        if self.count == 1:
            return share
        inputs, targets, domains = (
            gather(part, rows, self.count) for part in (share.inputs, share.targets, share.domains)
        )
        return DomainBatch.balanced(inputs, targets, domains, share.domain_count)

    def total(self, value: int) -> int:
        """Sum over processes."""
        if self.count == 1:
            return value
        total = torch.tensor(value)
        dist.all_reduce(total, group=self.messages)
        return int(total)

    def agree(self, module: nn.Module) -> None:
        """Give all processes the first one's parameters and buffers.

        They are equal to the last bit where all operations are deterministic, which some on GPUs are not.
        """
        if self.count > 1:
            for value in module.state_dict().values():
                dist.broadcast(value, 0)

    @contextmanager
    def together(self) -> Iterator[None]:
        """A part of the work that may fail in one process: where it does, it fails in all of them.

        Raises:
            OSError: In the processes where nothing failed, with the words of one where it did.
        """
        problem: OSError | ValueError | None = None
        try:
            yield
        except (OSError, ValueError) as error:
            problem = error
        if self.count > 1 and self.total(int(problem is not None)):
            words: list[Any] = [None] * self.count
            dist.all_gather_object(words, problem and str(problem), group=self.messages)
            problem = problem or OSError(next(filter(None, words)))
        if problem is not None:
            raise problem


ALONE = Processes()
"""A run's only process."""
