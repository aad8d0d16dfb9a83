r"""Hessian-gradient product alignment (HGP; Hemati, Zhang, Estiri and Chen, ICCV 2023)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from hessalign.head import HeadDerivatives

Centre = Literal["mean_loss", "mean_product"]


def hgp_distances(
    domains: Sequence[HeadDerivatives], centre: Centre = "mean_loss", detach_centre: bool = False
) -> Tensor:
    """``‖H_e G_e − c‖²`` of each domain.

    Args:
        domains: Derivatives of ``m`` domains.
        centre: ``"mean_loss"`` (default): ``c = H̄ Ḡ``, Hessian and gradient of the mean loss, as in the
            paper's code. ``"mean_product"``: ``c = (1/m) Σ_e H_e G_e``, as in the paper's text.
        detach_centre: No derivative flows through ``c``. Changes the derivative for ``"mean_loss"`` only.

    Returns:
        ``(m,)``.
    """
    gradients = torch.stack([domain.gradient() for domain in domains])
    mean_gradient = gradients.mean(0)
    # One product for both directions: [:, 0] is H_e G_e, [:, 1] is H_e Ḡ, whose mean is H̄ Ḡ.
    products = torch.stack(
        [
            domain.hvp(torch.stack([gradient, mean_gradient]))
            for domain, gradient in zip(domains, gradients, strict=True)
        ]
    )
    own = products[:, 0]
    target = products[:, 1].mean(0) if centre == "mean_loss" else own.mean(0)
    if detach_centre:
        target = target.detach()
    return (own - target).square().flatten(1).sum(1)
