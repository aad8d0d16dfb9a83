r"""Alignment of whole Hessians in the spectral norm: the paper's bound on the transfer measure."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from hessalign.head import HeadDerivatives, spectral_norm


def spectral_distances(domains: Sequence[HeadDerivatives], detach_centre: bool = False) -> Tensor:
    """``‖H_e − H̄‖₂²`` of each domain, matrix-free.

    Args:
        domains: Derivatives of ``m`` domains.
        detach_centre: No derivative flows through ``H̄``.

    Returns:
        ``(m,)``.
    """

    def difference(v: Tensor, domain: HeadDerivatives) -> Tensor:
        centre = torch.stack([other.hvp(v) for other in domains]).mean(0)
        return domain.hvp(v) - (centre.detach() if detach_centre else centre)

    like = domains[0].gradient()
    norms = [spectral_norm(partial(difference, domain=domain), like) for domain in domains]
    return torch.stack(norms).square()
