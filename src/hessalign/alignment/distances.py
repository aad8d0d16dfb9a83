r"""Distances between the head derivatives of ``m`` domains, side by side.

Each function takes the domains' derivatives and returns ``(m,)``: one distance for each domain. A bar is the
mean over domains, all with equal weight. How the numbers are computed: [hessalign.head.statistics][].

With ``unbiased=True`` products of a domain with itself run over distinct samples (U-statistics), so that the
expected value of a distance does not depend on how many samples a domain has; the plug-in distance is too
large by the sampling noise, about ``tr Cov / n``. Products of two domains have no bias. Such an estimate can
be negative.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from hessalign.head import DomainDerivatives, HeadDerivatives, Statistics, spectral_norm
from hessalign.head.statistics import Centre

Domains = Sequence[HeadDerivatives] | Statistics


def gradient_distances(domains: Domains, unbiased: bool = False) -> Tensor:
    """``‖G_e − Ḡ‖²`` of each domain: the β part of the paper's objective.

    Whether ``Ḡ`` is detached makes no difference to the derivative of the sum over domains: the differences
    to their own mean add up to zero. The same holds for diagonals and whole Hessians.

    Args:
        domains: Derivatives of ``m`` domains.
        unbiased: U-statistics.

    Returns:
        ``(m,)``.
    """
    return _of(domains, "gradient", unbiased=unbiased).spread("gradient").distances


def diagonal_distances(domains: Domains, unbiased: bool = False) -> Tensor:
    """``‖D_e − D̄‖²`` of each domain, ``D_e`` the exact diagonal of ``H_e``: no probes.

    Args:
        domains: Derivatives of ``m`` domains.
        unbiased: U-statistics.

    Returns:
        ``(m,)``.
    """
    return _of(domains, "diagonal", unbiased=unbiased).spread("diagonal").distances


def frobenius_distances(domains: Domains, unbiased: bool = False) -> Tensor:
    """``‖H_e − H̄‖_F²`` of each domain, the whole Hessian, without forming any.

    Closed forms of this kind for moment alignment: Chen, Si, Zhang and Zhao, "Moment Alignment", UAI 2025.

    Args:
        domains: Derivatives of ``m`` domains.
        unbiased: U-statistics.

    Returns:
        ``(m,)``.
    """
    return _of(domains, "hessian", unbiased=unbiased).spread("hessian").distances


def hgp_distances(
    domains: Domains, centre: Centre = "mean_loss", detach_centre: bool = False, unbiased: bool = False
) -> Tensor:
    """``‖H_e G_e − c‖²`` of each domain, the Hessian-gradient product (Hemati et al., ICCV 2023).

    Args:
        domains: Derivatives of ``m`` domains.
        centre: ``"mean_loss"`` (default): ``c = H̄ Ḡ``, Hessian and gradient of the mean loss, as in the
            paper's code. ``"mean_product"``: ``c = (1/m) Σ_e H_e G_e``, as in the paper's text.
        detach_centre: ``c`` is a constant, also as a function of the features. Changes the derivative for
            ``"mean_loss"`` only.
        unbiased: U-statistics; with ``"mean_product"`` only.

    Returns:
        ``(m,)``.

    Raises:
        ValueError: If ``unbiased`` is asked for with ``"mean_loss"``.
    """
    if unbiased and centre != "mean_product":
        raise ValueError(
            "unbiased: 'hgp' needs centre='mean_product', the mean of the products H_e G_e; with "
            "centre='mean_loss' the centre multiplies samples of one domain from Hessian and gradient"
        )
    return _of(domains, "hgp", unbiased=unbiased).hgp_distances(centre, detach_centre)


def expected_hutchinson_distances(
    domains: Domains, probes: int, detach_centre: bool = False, unbiased: bool = False
) -> Tensor:
    """Expectation over the probes of [sampled_hutchinson_distances][], in closed form.

    ``‖D_e − D̄‖² + (1/k)(off(H_e) + off(H̄))`` with ``off(H) = ‖H‖_F² − ‖diag H‖²``. The second term does not
    align anything: it pulls the off-diagonal elements of every Hessian to zero.

    Args:
        domains: Derivatives of ``m`` domains.
        probes: ``k``.
        detach_centre: No derivative flows through ``off(H̄)``.
        unbiased: U-statistics.

    Returns:
        ``(m,)``.
    """
    statistics = _of(domains, "hessian", "diagonal", unbiased=unbiased)
    whole, diagonal = statistics.spread("hessian"), statistics.spread("diagonal")
    off_of_mean = whole.square_of_mean() - diagonal.square_of_mean()
    if detach_centre:
        off_of_mean = off_of_mean.detach()
    return diagonal.distances + (whole.squares - diagonal.squares + off_of_mean) / probes


def sampled_hutchinson_distances(
    domains: Sequence[HeadDerivatives],
    probes: int,
    generator: torch.Generator | None = None,
    detach_centre: bool = False,
) -> Tensor:
    """``‖D̂_e − D̂‖²`` of each domain (Hemati et al., ICCV 2023), every estimate from ``k`` probes of its own.

    ``D̂ = (1/k) Σ_j s_j ⊙ (H s_j)`` with Rademacher probes ``s_j``, drawn anew for every domain and for the
    Hessian of the mean loss.

    Args:
        domains: Derivatives of ``m`` domains.
        probes: ``k``, probes for each estimate. Holds ``2k`` vectors of ``C(d+1)`` values for each domain.
        generator: Source of the probes; torch's global one by default.
        detach_centre: No derivative flows through ``D̂``, the estimate for the mean loss.

    Returns:
        ``(m,)``.
    """
    parts = [domain.precise() for domain in domains]
    shape, like = (probes, *parts[0].shape), parts[0].features
    mean_signs = _rademacher(shape, like, generator)
    own, of_mean = [], []
    for part in parts:
        signs = torch.cat([_rademacher(shape, like, generator), mean_signs])
        estimates = signs * part.hvp(signs)
        own.append(estimates[:probes].mean(0))
        of_mean.append(estimates[probes:].mean(0))
    centre = torch.stack(of_mean).mean(0)
    if detach_centre:
        centre = centre.detach()
    return (torch.stack(own) - centre).square().flatten(1).sum(1)


def spectral_distances(domains: Sequence[HeadDerivatives], detach_centre: bool = False) -> Tensor:
    """``‖H_e − H̄‖₂²`` of each domain, matrix-free: the paper's bound on the transfer measure.

    Args:
        domains: Derivatives of ``m`` domains.
        detach_centre: No derivative flows through ``H̄``.

    Returns:
        ``(m,)``.
    """
    grouped = DomainDerivatives.of(domains)
    whole = grouped.mean().precise()

    def difference(v: Tensor, part: HeadDerivatives) -> Tensor:
        centre = whole.hvp(v)
        return part.hvp(v) - (centre.detach() if detach_centre else centre)

    parts = [part.precise() for part in grouped]
    like = parts[0].features.new_zeros(parts[0].shape)
    return torch.stack([spectral_norm(partial(difference, part=part), like) for part in parts]).square()


def hessian_squares(domains: Domains, part: str = "whole") -> Tensor:
    """``‖H_e‖_F²`` of each domain, or ``off(H_e) = ‖H_e‖_F² − ‖diag H_e‖²``; no Hessian is formed.

    Args:
        domains: Derivatives of ``m`` domains.
        part: ``"whole"`` (default) or ``"off_diagonal"``.

    Returns:
        ``(m,)``; rounding is kept from making it negative.
    """
    if part == "whole":
        squares = _of(domains, "hessian").spread("hessian").squares
    else:
        statistics = _of(domains, "hessian", "diagonal")
        squares = statistics.spread("hessian").squares - statistics.spread("diagonal").squares
    return squares.clamp(min=0)


def _of(domains: Domains, *wanted: str, unbiased: bool = False) -> Statistics:
    if isinstance(domains, Statistics):
        return domains
    return Statistics(DomainDerivatives.of(domains), wanted, unbiased)  # type: ignore[arg-type]


def _rademacher(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = like.device if generator is None else generator.device
    return torch.randint(0, 2, shape, generator=generator, device=device).to(like) * 2 - 1
