r"""Exact alignment of the Hessians' diagonals: what Hutchinson's estimate tends to with many probes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hessalign.head import HeadDerivatives


def diagonal_distances(domains: Sequence[HeadDerivatives]) -> Tensor:
    """``‖D_e − D̄‖²`` of each domain, ``D_e`` the diagonal of ``H_e`` and ``D̄`` their mean.

    As for the gradient, detaching ``D̄`` would not change the derivative of the sum over domains.

    Args:
        domains: Derivatives of ``m`` domains.

    Returns:
        ``(m,)``.
    """
    diagonals = torch.stack([domain.diagonal() for domain in domains])
    return (diagonals - diagonals.mean(0)).square().flatten(1).sum(1)
