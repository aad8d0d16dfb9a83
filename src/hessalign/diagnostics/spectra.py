r"""Leading eigenvalues of head Hessians, and what single samples contribute to them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hessalign.head import HeadDerivatives, leading_eigenpairs


def domain_eigenvalues(domains: Sequence[HeadDerivatives], count: int) -> list[Tensor]:
    """The ``count`` leading eigenvalues of each domain's Hessian."""
    return [leading_eigenpairs(domain.hvp, domain.gradient(), count)[0].double() for domain in domains]


def bilinear_forms(domain: HeadDerivatives, vectors: Tensor) -> Tensor:
    """``v_jᵀ Φ_i v_l`` of each sample's Hessian ``Φ_i = A_i ⊗ z̃_i z̃_iᵀ``, ``(n, k, k)``, float64.

    Args:
        domain: ``n`` samples.
        vectors: ``(k, C, d+1)``.
    """
    projected = _projected(domain, vectors)
    return (projected @ domain.curvature.apply(projected).transpose(1, 2)).double()


def curved_squares(domain: HeadDerivatives, vector: Tensor) -> Tensor:
    """``‖Φ_i v‖²`` of each sample, ``(n,)``, float64."""
    curved = domain.curvature.apply(_projected(domain, vector.unsqueeze(0))).squeeze(1)
    return curved.double().square().sum(1) * (1 + domain.features.double().square().sum(1))


def _projected(domain: HeadDerivatives, vectors: Tensor) -> Tensor:
    """``V_j z̃_i``, ``(n, k, C)``."""
    flat = vectors.flatten(0, 1)
    projected = torch.addmm(flat[:, -1], domain.features, flat[:, :-1].T)
    return projected.view(len(domain), *vectors.shape[:2])
