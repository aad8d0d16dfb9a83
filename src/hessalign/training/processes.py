"""The processes of a run: a backbone's work spread over them, and what they tell each other.

Every process holds the whole batch, the same weights and the same random numbers, and computes the same
losses. Only the backbone's network, which takes nearly all of the time, does its share of the rows in each.
Two kinds of tensors occur: *replicated* ones, equal in all processes, and *shards*, of which each has its
own:

    inputs (replicated) -> rows of this process (shard) -> network -> its features (shard)
        -> all_gather -> features (replicated)

The derivative of taking a shard is gathering shards and the other way round. The network's weights are
replicated and are used on shards, so their derivative is the sum over processes. Whatever is computed from
the features, of whatever samples and domains, is thus that of the whole batch, and so are all its
derivatives. Features and gradients are as if one process did all of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from hessalign.algorithms import Algorithm, DomainBatch
from hessalign.algorithms.base import known_as
from hessalign.backbones import Backbone
from hessalign.training.seeds import seeded


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
        """Let the algorithm's backbones share their work."""
        if self.count > 1:
            spread_backbones(algorithm, self.rank, self.count)

    def all_gather(self, shard: DomainBatch, rows: int) -> DomainBatch:
        """The batch of ``rows`` samples, from each process's shard of it."""
        if self.count == 1:
            return shard
        inputs, targets, domains = (
            all_gather(values, rows, self.count) for values in (shard.inputs, shard.targets, shard.domains)
        )
        return DomainBatch.balanced(inputs, targets, domains, shard.domain_count)

    def all_reduce(self, value: int) -> int:
        """Sum over processes."""
        if self.count == 1:
            return value
        total = torch.tensor(value)
        dist.all_reduce(total, group=self.messages)
        return int(total)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over processes of what lies in main memory; exact where all but one have zeros."""
        if self.count > 1:
            dist.all_reduce(values, group=self.messages)
        return values

    def broadcast(self, module: nn.Module) -> None:
        """Give all processes the first one's parameters and buffers.

        They are equal to the last bit where all operations are deterministic, which some on GPUs are not.
        """
        if self.count > 1:
            for value in module.state_dict().values():
                dist.broadcast(value, 0)

    def first_of(self, words: str | None) -> str | None:
        """What the first process that has something to say says; None where none has."""
        if self.count == 1 or not self.all_reduce(int(words is not None)):
            return words
        said: list[str | None] = [None] * self.count
        dist.all_gather_object(said, words, group=self.messages)
        return next(filter(None, said))

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
        words = self.first_of(None if problem is None else str(problem) or type(problem).__name__)
        if problem is not None:
            raise problem
        if words is not None:
            raise OSError(words)


ALONE = Processes()
"""A run's only process."""


def spread_backbones(module: nn.Module, rank: int, count: int) -> None:
    """Let every backbone in a module compute only its process's rows in training.

    Outside of training each process goes on computing all that it is given.

    Args:
        module: The algorithm; copies made of it later are spread, too.
        rank: Of this process.
        count: Number of processes; the default process group's.
    """
    for backbone in _backbones(module):
        backbone.apply_network = partial(_apply_spread, rank=rank, count=count)


def check_spreadable(module: nn.Module) -> None:
    """Refuse networks whose features of a row depend on the other rows, and rules that one process must do.

    Raises:
        ValueError: If a backbone has a BatchNorm that is not frozen, or the rule is such a one.
    """
    if isinstance(module, Algorithm) and module.needs_one_process:
        raise ValueError(f"devices: an update of {known_as(module)} cannot be shared; allowed is 1")
    for backbone in _backbones(module):
        if any(isinstance(part, _BatchNorm) and part.training for part in backbone.network.modules()):
            raise ValueError(
                "devices: several processes cannot share the batch statistics of a BatchNorm that is "
                "trained; allowed is 1, or a backbone whose BatchNorm is frozen, as it is by default with "
                "pretrained weights"
            )


def rows_of(rank: int, count: int, rows: int, device: torch.device | None = None) -> Tensor:
    """The rows of a process: equally many for each, the last row repeated where they do not divide."""
    size = -(-rows // count)
    return torch.arange(rank * size, (rank + 1) * size, device=device).clamp(max=rows - 1)


def all_gather(shard: Tensor, rows: int, count: int) -> Tensor:
    """The tensor of all rows from equally long shards of all processes, cut to its number of rows."""
    gathered = shard.new_empty(count * len(shard), *shard.shape[1:])
    dist.all_gather(list(gathered.chunk(count)), shard.contiguous())
    return gathered[:rows]


def _apply_spread(network: nn.Module, inputs: Tensor, rank: int, count: int) -> Tensor:
    if not network.training:
        features: Tensor = network(inputs)
        return features
    named = {name: value for name, value in network.named_parameters() if value.requires_grad}
    weights = dict(zip(named, _UsedOnShards.apply(*named.values()), strict=True)) if named else {}
    with _draws_of_its_own(rank, inputs.device):
        shard = functional_call(network, weights, (_TakeShard.apply(inputs, rank, count),))
    gathered: Tensor = _AllGather.apply(shard, len(inputs), rank, count)
    return gathered


class _TakeShard(torch.autograd.Function):
    """Replicated to shard. Row ``n − 1`` may be repeated; only its first copy carries a derivative."""

    @staticmethod
    def forward(ctx: Any, replicated: Tensor, rank: int, count: int) -> Tensor:
        ctx.rows, ctx.rank, ctx.count = len(replicated), rank, count
        return replicated[rows_of(rank, count, len(replicated), replicated.device)]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _AllGather.apply(gradient, ctx.rows, ctx.rank, ctx.count), None, None


class _AllGather(torch.autograd.Function):
    """Shares to replicated; copies beyond the last row are dropped."""

    @staticmethod
    def forward(ctx: Any, shard: Tensor, rows: int, rank: int, count: int) -> Tensor:
        ctx.rows, ctx.rank, ctx.count = rows, rank, count
        return all_gather(shard, rows, count)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        shard = _TakeShard.apply(gradient, ctx.rank, ctx.count)
        # Copies were dropped, so nothing depends on them.
        own = torch.arange(ctx.rank * len(shard), (ctx.rank + 1) * len(shard), device=shard.device)
        kept = (own < ctx.rows).to(shard).view(-1, *[1] * (shard.dim() - 1))
        return shard * kept, None, None, None


class _UsedOnShards(torch.autograd.Function):
    """The identity on replicated tensors that are used on shards: their derivatives are added up."""

    @staticmethod
    def forward(ctx: Any, *replicated: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(value.view_as(value) for value in replicated)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        sums = iter(_AllReduce.apply(*[gradient for gradient in gradients if gradient is not None]))
        return tuple(None if gradient is None else next(sums) for gradient in gradients)


class _AllReduce(torch.autograd.Function):
    """Sums over processes, all tensors in one message."""

    @staticmethod
    def forward(ctx: Any, *shards: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        flat = torch.cat([shard.flatten() for shard in shards])
        dist.all_reduce(flat)
        parts = flat.split([shard.numel() for shard in shards])
        return tuple(part.view_as(shard).to(shard) for part, shard in zip(parts, shards, strict=True))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return gradients


@contextmanager
def _draws_of_its_own(rank: int, device: torch.device) -> Iterator[None]:
    """Random numbers that differ between processes; what comes after is in step again in all of them.

    The global random state moves on, by one draw, only where something was drawn, so that a network without
    randomness leaves it as one process would.
    """
    with torch.random.fork_rng([]):
        seed = int(torch.randint(2**62, ())) + rank
    with seeded(seed, device):
        before = _random_state(device)
        yield
        drawn = not torch.equal(before, _random_state(device))
    if drawn:
        torch.rand(())


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _backbones(module: nn.Module) -> list[Backbone]:
    return [part for part in module.modules() if isinstance(part, Backbone)]
