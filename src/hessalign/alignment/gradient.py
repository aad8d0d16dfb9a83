r"""Gradient alignment: the squared distance of each domain's head gradient to their mean."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hessalign.head import HeadDerivatives


def gradient_distances(domains: Sequence[HeadDerivatives]) -> Tensor:
    """``‖G_e − Ḡ‖²`` of each domain, ``Ḡ`` the mean over domains with equal weights.

    The β part of the paper's objective. Whether ``Ḡ`` is detached makes no difference to the derivative
    of the sum over domains: the differences to their own mean add up to zero.

    Args:
        domains: Derivatives of ``m`` domains.

    Returns:
        ``(m,)``.
    """
    gradients = torch.stack([domain.gradient() for domain in domains])
    return (gradients - gradients.mean(0)).square().flatten(1).sum(1)
