r"""Exact alignment of whole Hessians in the Frobenius norm, without forming any of them."""

from collections.abc import Sequence

from torch import Tensor

from hessalign.head import HeadDerivatives, hessian_inner_products


def frobenius_distances(domains: Sequence[HeadDerivatives]) -> Tensor:
    """``‖H_e − H̄‖_F²`` of each domain, from the inner products ``K_ef = ⟨H_e, H_f⟩_F``.

    ``K_ee − (2/m) Σ_f K_ef + (1/m²) Σ_fg K_fg``; their sum is ``Σ_e K_ee − (1/m) Σ_ef K_ef``. As for the
    gradient, detaching ``H̄`` would not change the derivative of the sum over domains. Closed forms of
    this kind for moment alignment: Chen, Si, Zhang and Zhao, "Moment Alignment", UAI 2025.

    Args:
        domains: Derivatives of ``m`` domains.

    Returns:
        ``(m,)``; rounding is kept from making it negative.
    """
    products = hessian_inner_products(domains)
    distances = products.diagonal() - 2 * products.mean(1) + products.mean()
    return distances.clamp(min=0)
