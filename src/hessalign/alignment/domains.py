"""Grouping a batch by its domain ids."""

import torch
from torch import Tensor


def sort_by_domain(domains: Tensor, samples: int) -> tuple[Tensor | None, list[int]]:
    """Order that puts each domain's samples together, and how many samples each domain has.

    Args:
        domains: Integer domain ids, ``(n,)``, in any order, not necessarily contiguous.
        samples: ``n``, the length that ``domains`` must have.

    Returns:
        Indices that sort the batch by domain, or None where it is sorted already, and the domains' sizes in
        ascending order of their ids.

    Raises:
        ValueError: If ``domains`` is not a tensor of ``n`` integers.
    """
    if domains.is_floating_point() or domains.is_complex() or domains.shape != (samples,):
        raise ValueError(
            f"domains: must hold one integer id for each of the {samples} samples, "
            f"got {domains.dtype} of shape {tuple(domains.shape)}"
        )
    if bool((domains[1:] >= domains[:-1]).all()):
        order, ordered = None, domains
    else:
        ordered, order = domains.sort(stable=True)
    _, sizes = torch.unique_consecutive(ordered, return_counts=True)
    return order, [int(size) for size in sizes]
