"""The whole batch of several processes, with derivatives, for penalties that are no mean over samples."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather_samples(*values: Tensor) -> tuple[Tensor, ...]:
    r"""The samples of all processes, one after the other, in every process.

    An alignment penalty is not a mean over samples, so the mean of what each process computes from its share
    is another objective than the penalty of the whole batch. Gather first, then compute the penalty. Each
    process gets the same penalty ``P``, and the derivative that reaches its own samples is that of
    ``world_size · P``, so that the mean over processes that ``DistributedDataParallel`` takes of the
    parameters' gradients is exactly that of ``P``.

    Shares may be of different lengths. Where no process group runs, the values are returned as they are.

    Args:
        *values: Tensors whose first axis is the samples, equally long in a process; the other axes agree
            between processes.

    Returns:
        As many tensors, with the samples of process 0 first.

    Raises:
        ValueError: If a value is no tensor or has no axis, or the values differ in length.

    Examples:
        >>> import torch
        >>> from hessalign.loop import gather_samples
        >>> features, domains = gather_samples(torch.zeros(4, 2), torch.zeros(4))
        >>> features.shape
        torch.Size([4, 2])
    """
    for value in values:
        if not isinstance(value, Tensor) or value.ndim == 0:
            given = "a tensor without axes" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"values: must be tensors whose first axis is the samples, got {given}; number domain ids "
                "that are strings, in the same way in every process"
            )
    lengths = [len(value) for value in values]
    if len(set(lengths)) > 1:
        raise ValueError(f"values: must be equally long, got lengths {lengths}")
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return values
    sizes = _sizes(lengths[0], values[0].device)
    return tuple(_Gather.apply(value, sizes) for value in values)


def _sizes(own: int, device: torch.device) -> list[int]:
    """Number of samples of every process."""
    sizes = torch.zeros(dist.get_world_size(), dtype=torch.long, device=device)
    sizes[dist.get_rank()] = own
    dist.all_reduce(sizes)
    return [int(size) for size in sizes]


class _Gather(torch.autograd.Function):
    """Forward: all shares, padded to one length on the way. Backward: the sum over processes."""

    @staticmethod
    def forward(ctx: Any, share: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        padded = share.new_zeros(max(sizes), *share.shape[1:])
        padded[: len(share)] = share
        shares = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(shares, padded)
        return torch.cat([part[:size] for part, size in zip(shares, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        total = outputs[0].contiguous().clone()
        dist.all_reduce(total)
        own: Tensor = total.split(ctx.sizes)[dist.get_rank()]
        return own, None
