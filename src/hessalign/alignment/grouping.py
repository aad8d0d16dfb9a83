"""From a batch with domain ids to the head derivatives of its domains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hessalign.checks import require_whole
from hessalign.head import DomainDerivatives, HeadDerivatives, HeadLoss
from hessalign.head.derivatives import check_finite, check_shapes
from hessalign.inputs import as_domain_ids, as_tensor


@dataclass(frozen=True)
class SortedDomains:
    """Domains of a batch that is sorted by domain, given by their sizes in the place of ids.

    With it a penalty reads no value of the batch, so that nothing waits for the device: not even NaN,
    infinity or a class id out of range is looked for.

    Attributes:
        sizes: Samples of each domain, in the batch's order, at least one each.

    Raises:
        ValueError: If there is no domain or a size is no whole number of at least 1.

    Example:
        >>> import torch
        >>> from hessalign import HessianAlignment
        >>> from hessalign.alignment import SortedDomains
        >>> features, targets = torch.randn(12, 4), torch.randint(0, 3, (12,))
        >>> logits = torch.nn.Linear(4, 3)(features)
        >>> value = HessianAlignment("hgp")(features, logits, targets, SortedDomains([4, 4, 4]))
    """

    sizes: Sequence[int]

    def __post_init__(self) -> None:
        sizes = tuple(require_whole("sizes", size, least=1) for size in self.sizes)
        if not sizes:
            raise ValueError("sizes: at least one domain is needed, got none")
        object.__setattr__(self, "sizes", sizes)


def derivatives_by_domain(
    features: Any,
    logits: Any,
    targets: Any,
    domains: Any,
    loss: HeadLoss,
    bias: bool = True,
    sample_weight: Any = None,
) -> DomainDerivatives:
    """Head derivatives of each domain of a batch, in ascending order of the domains' ids.

    Args:
        features: ``(n, d)``.
        logits: ``(n, C)``, or ``(n,)`` for one logit.
        targets: As the loss takes them.
        domains: Domain ids, ``(n,)``, in any order, or [SortedDomains][hessalign.alignment.SortedDomains].
        loss: Loss of the head.
        bias: Whether the head has a bias.
        sample_weight: Weight of each sample in its domain's mean loss, ``(n,)``; equal by default.

    Raises:
        ValueError: As [HeadDerivatives.from_logits][hessalign.HeadDerivatives.from_logits] and
            [sort_by_domain][] do, and if no sample of a domain counts.
    """
    features, logits = as_tensor("features", features), as_tensor("logits", logits)
    targets = as_tensor("targets", targets)
    if logits.ndim == 1:
        logits = logits.unsqueeze(1)
    check_shapes(features, logits, targets)
    if isinstance(domains, SortedDomains):
        if sum(domains.sizes) != len(features):
            raise ValueError(
                f"domains: sizes must add up to the {len(features)} samples, got {sum(domains.sizes)}"
            )
        batch = HeadDerivatives.from_checked(
            features, logits, targets, loss, bias=bias, sample_weight=sample_weight
        )
        return DomainDerivatives(batch, domains.sizes)
    ids = as_domain_ids("domains", domains, len(features), features.device)
    order, sizes = sort_by_domain(ids, samples=len(features))
    if sample_weight is not None:
        sample_weight = as_tensor("sample_weight", sample_weight, features.device)
    if order is not None:
        check_finite(features, logits)
        place = order.to(features.device)
        features, logits, targets = features[place], logits[place], targets[order.to(targets.device)]
        if isinstance(sample_weight, Tensor) and sample_weight.shape == (len(features),):
            sample_weight = sample_weight[place]
    batch = HeadDerivatives.from_logits(
        features, logits, targets, loss, bias=bias, sample_weight=sample_weight
    )
    found = DomainDerivatives(batch, sizes)
    if batch.weight is not None:
        _check_counting(found)
    return found


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
    domains = as_domain_ids("domains", domains, samples)
    if bool((domains[1:] >= domains[:-1]).all()):
        order, ordered = None, domains
    else:
        ordered, order = domains.sort(stable=True)
    _, sizes = torch.unique_consecutive(ordered, return_counts=True)
    return order, sizes.tolist()


def _check_counting(domains: DomainDerivatives) -> None:
    weights = domains.batch.weight
    assert weights is not None
    counted = [float(part.sum()) for part in weights.detach().split(list(domains.sizes))]
    if min(counted) <= 0:
        raise ValueError(
            "targets, sample_weight: every domain needs a sample that counts, but of the domain at position "
            f"{counted.index(min(counted))} in ascending order all are ignored or have weight 0"
        )
