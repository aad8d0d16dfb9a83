"""What all penalties over domains share: grouping a batch by its domain ids."""

import torch
from torch import Tensor

from hessalign.head import HeadDerivatives, HeadLoss


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


def derivatives_by_domain(
    features: Tensor, logits: Tensor, targets: Tensor, domains: Tensor, loss: HeadLoss
) -> list[HeadDerivatives]:
    """Head derivatives of each domain of a batch, in ascending order of the domains' ids.

    Args:
        features: ``(n, d)``.
        logits: ``(n, C)``, or ``(n,)`` for one logit.
        targets: As the loss takes them.
        domains: Integer domain ids, ``(n,)``, in any order.
        loss: Loss of the head.

    Raises:
        ValueError: As [HeadDerivatives.from_logits][hessalign.HeadDerivatives.from_logits] and
            [sort_by_domain][] do.
    """
    order, sizes = sort_by_domain(domains, samples=len(features))
    if order is not None:
        features, logits, targets = features[order], logits[order], targets[order]
    return HeadDerivatives.from_logits(features, logits, targets, loss).split(sizes)
