r"""Hutchinson alignment (Hemati et al., ICCV 2023): distances between estimated Hessian diagonals.

The estimate is ``D̂ = (1/k) Σ_j s_j ⊙ (H s_j)`` with Rademacher probes ``s_j``, drawn anew for every domain
and for the Hessian of the mean loss.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hessalign.head import HeadDerivatives, hessian_inner_products_and_diagonals


def sampled_hutchinson_distances(
    domains: Sequence[HeadDerivatives],
    probes: int,
    generator: torch.Generator | None = None,
    detach_centre: bool = False,
) -> Tensor:
    """``‖D̂_e − D̂‖²`` of each domain, every estimate from ``k`` probes of its own.

    Args:
        domains: Derivatives of ``m`` domains.
        probes: ``k``, probes for each estimate. Holds ``2k`` vectors of ``C(d+1)`` values for each domain.
        generator: Source of the probes; torch's global one by default.
        detach_centre: No derivative flows through ``D̂``, the estimate for the mean loss.

    Returns:
        ``(m,)``.
    """
    shape = (probes, *domains[0].gradient().shape)
    like = domains[0].features
    mean_signs = _rademacher(shape, like, generator)
    own, mean_parts = [], []
    for domain in domains:
        signs = torch.cat([_rademacher(shape, like, generator), mean_signs])
        estimates = signs * domain.hvp(signs)
        own.append(estimates[:probes].mean(0))
        mean_parts.append(estimates[probes:].mean(0))
    centre = torch.stack(mean_parts).mean(0)
    if detach_centre:
        centre = centre.detach()
    return (torch.stack(own) - centre).square().flatten(1).sum(1)


def expected_hutchinson_distances(
    domains: Sequence[HeadDerivatives], probes: int, detach_centre: bool = False
) -> Tensor:
    """Expectation over the probes of the sampled distances, in closed form.

    ``‖D_e − D̄‖² + (1/k)(off(H_e) + off(H̄))`` with ``off(H) = ‖H‖_F² − ‖diag H‖²``. The second term does not
    align anything: it pulls the off-diagonal elements of every Hessian to zero.

    Args:
        domains: Derivatives of ``m`` domains.
        probes: ``k``.
        detach_centre: No derivative flows through ``D̄`` and ``off(H̄)``.

    Returns:
        ``(m,)``.
    """
    products, diagonals = hessian_inner_products_and_diagonals(domains)
    diagonals = diagonals.flatten(1)
    mean_diagonal = diagonals.mean(0)
    off = products.diagonal() - diagonals.square().sum(1)
    off_of_mean = products.mean() - mean_diagonal.square().sum()
    if detach_centre:
        mean_diagonal, off_of_mean = mean_diagonal.detach(), off_of_mean.detach()
    return (diagonals - mean_diagonal).square().sum(1) + (off + off_of_mean) / probes


def _rademacher(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = like.device if generator is None else generator.device
    return torch.randint(0, 2, shape, generator=generator, device=device).to(like) * 2 - 1
