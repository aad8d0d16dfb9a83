r"""Distances of pairs of domains: values, intervals, what each sample contributes, and the transfer bound.

The transfer measure ``T(S ‖ T)`` is the largest excess of the target domain's regret over the source's, over
heads ``θ`` in a neighbourhood ``‖θ − θ₀‖ ≤ δ``:
``sup_θ (R_T(θ) − min R_T) − (R_S(θ) − min R_S)`` (Zhang et al., "Quantifying and Improving Transferability in
Domain Generalization", NeurIPS 2021). Second-order expansion at ``θ₀`` gives both terms here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hessalign.diagnostics.bootstrap import (
    Interval,
    resampled_means,
    spectral_interval,
    squared_distance_interval,
)
from hessalign.diagnostics.means import DomainMeans, Pairs, project, row_squares
from hessalign.head import HeadDerivatives, leading_eigenpairs

# Leading eigenvalues of a difference that replicates let mix.
MIXING_EIGENVALUES = 6


@dataclass(frozen=True, eq=False)
class PairDistance:
    """One distance between two domains.

    Attributes:
        first: Index of a domain.
        second: Index of the other.
        distance: Between the domains as they are.
        relative: The same, divided by the root of the product of the two quantities' own norms.
        interval: Without what chance adds, and with its interval; None where none was asked for, or a domain
            has a single sample.
        influences: Of the samples of the first and of the second domain: by how much, to first order, the
            distance would shrink if the sample were left out; NaN for the only sample of a domain.
        rows: The samples that the influences belong to.
    """

    first: int
    second: int
    distance: float
    relative: float
    interval: Interval | None
    influences: tuple[Tensor, Tensor]
    rows: tuple[Tensor, Tensor]


def mean_distances(
    means: DomainMeans, replicates: int, level: float, generator: np.random.Generator
) -> list[PairDistance]:
    """Distances ``‖μ_e − μ_f‖`` of the pairs that are compared in full.

    Args:
        means: Of gradients, Hessians or diagonals.
        replicates: Number of bootstrap replicates; 0 for no intervals.
        level: Share of intervals that hold the truth, such as 0.95.
        generator: Draws the replicates.

    Returns:
        One for each pair, ascending.
    """
    draws: dict[int, Tensor] = {}
    if replicates:
        compared = [index for index, partners in enumerate(means.pairs.partners) if partners]
        products = [means.products[index] for index in compared]
        sizes = [means.sizes[index] for index in compared]
        draws = dict(zip(compared, resampled_means(products, sizes, replicates, generator), strict=True))
    noise, scales = means.noise(), means.scales()
    result = []
    for first, second in means.pairs.chosen:
        squared = float(means.distances[first, second])
        distance = squared**0.5
        limits = None
        if draws and min(means.sizes[first], means.sizes[second]) > 1:
            first_draws, second_draws = (
                draws[index][:, means.column(index, first)] - draws[index][:, means.column(index, second)]
                for index in (first, second)
            )
            changes = 2 * (first_draws - second_draws)
            limits = squared_distance_interval(squared, float(noise[first, second]), changes, level)
        own = means.influences(first, second)
        sides = zip((1, -1), own, (first, second), strict=True)
        influences = [
            sign * _about_mean(values) / (_or_one(distance) * (means.sizes[index] - 1))
            for sign, values, index in sides
        ]
        result.append(
            PairDistance(
                first,
                second,
                distance,
                distance / float(scales[first, second]),
                limits,
                (influences[0], influences[1]),
                (means.rows[first], means.rows[second]),
            )
        )
    return result


def domain_eigenvalues(domains: Sequence[HeadDerivatives], count: int) -> list[Tensor]:
    """The ``count`` leading eigenvalues of each domain's Hessian."""
    found = []
    for domain in domains:
        (short,) = in_their_span([domain], count)
        found.append(leading_eigenpairs(short.hvp, short.gradient(), count)[0].double())
    return found


def hessian_traces(domains: Sequence[HeadDerivatives]) -> list[tuple[float, float]]:
    """Trace of each domain's Hessian, ``mean_i tr(A_i) ‖z̃_i‖²``, and its standard error over samples."""
    found = []
    for domain in domains:
        sizes = domain.bias + row_squares(domain.features)
        values = (domain.curvature.diagonal().sum(1) * sizes).double()
        error = float(values.std()) / len(values) ** 0.5 if len(values) > 1 else math.nan
        found.append((float(values.mean()), error))
    return found


def spectral_distances(
    domains: Sequence[HeadDerivatives],
    largest: Sequence[float],
    replicates: int,
    level: float,
    generator: np.random.Generator,
    pairs: Pairs | None = None,
) -> list[PairDistance]:
    """Distances ``‖H_e − H_f‖₂`` of the pairs that are compared in full.

    Args:
        domains: Derivatives of each domain.
        largest: ``‖H_e‖₂`` of each domain.
        replicates: Number of bootstrap replicates; 0 for no intervals.
        level: Share of intervals that hold the truth, such as 0.95.
        generator: Draws the replicates.
        pairs: Those to compare in full; by default all.

    Returns:
        One for each pair, ascending.
    """
    chosen = (Pairs.all_of(len(domains)) if pairs is None else pairs).chosen
    return [
        _spectral_distance(
            domains, (first, second), (largest[first] * largest[second]) ** 0.5, replicates, level, generator
        )
        for first, second in chosen
    ]


def transfer_bound(spectral_distance: float, radius: float) -> float:
    """``½ δ² ‖H_S − H_T‖₂``: the bound, up to ``o(δ²)``, where ``θ₀`` is stationary in both domains.

    That the spectral norm between head Hessians bounds the transfer measure is the theorem of Hemati et al.,
    "Understanding Hessian Alignment for Domain Generalization", ICCV 2023.

    Args:
        spectral_distance: ``‖H_S − H_T‖₂``.
        radius: ``δ``, in units of the head's weights.

    Returns:
        The bound, in units of the loss.
    """
    return 0.5 * radius**2 * spectral_distance


def gradient_term(first: Tensor, second: Tensor, radius: float) -> float:
    """``δ (‖G_S − G_T‖ + max(‖G_S‖, ‖G_T‖))``: what must be added where ``θ₀`` is not stationary.

    The first term is the slope of the difference of risks; the second bounds how far the target's risk at
    ``θ₀`` lies above its minimum in the neighbourhood, for a loss convex in the head. Zero where both
    gradients vanish.

    Args:
        first: Gradient in one domain, ``(C, d+1)``.
        second: In the other.
        radius: ``δ``.

    Returns:
        The term, in units of the loss.
    """
    difference = float((first - second).double().norm())
    return radius * (difference + max(float(first.double().norm()), float(second.double().norm())))


def _spectral_distance(
    domains: Sequence[HeadDerivatives],
    pair: tuple[int, int],
    scale: float,
    replicates: int,
    level: float,
    generator: np.random.Generator,
) -> PairDistance:
    chosen = in_their_span([domains[index] for index in pair], MIXING_EIGENVALUES)
    first, second = chosen
    values, vectors = leading_eigenpairs(
        lambda v: first.hvp(v) - second.hvp(v), first.gradient(), MIXING_EIGENVALUES
    )
    values = values.double()
    modulus, direction = abs(float(values[0])), (1 if values[0] >= 0 else -1)
    forms = [_bilinear_forms(domain, vectors) for domain in chosen]
    sizes = [len(domain) for domain in chosen]
    limits = None
    if replicates and min(sizes) > 1:
        draws = resampled_means([form.flatten(1) for form in forms], sizes, replicates, generator)
        changes = (draws[0] - draws[1]).view(-1, *forms[0].shape[1:])
        limits = spectral_interval(values, changes, _noise_outside(chosen, vectors, modulus, forms), level)
    leading = [form[:, 0, 0] for form in forms]
    sides = zip((direction, -direction), leading, sizes, strict=True)
    influences = [sign * _about_mean(form) / (size - 1) for sign, form, size in sides]
    return PairDistance(
        pair[0],
        pair[1],
        modulus,
        modulus / _or_one(scale),
        limits,
        (influences[0], influences[1]),
        (torch.arange(sizes[0]), torch.arange(sizes[1])),
    )


def in_their_span(domains: Sequence[HeadDerivatives], count: int) -> list[HeadDerivatives]:
    """The domains' samples in coordinates of an orthonormal basis of what their features span.

    Outside of it their Hessians are zero, so eigenvalues, lengths and products are the same, of vectors that
    are as long as there are samples where there are fewer of them than features.

    Args:
        domains: Of one head.
        count: Eigenvalues that are wanted: so many there must be.

    Returns:
        Domains without a bias, whose constant is one of the features; as they are where nothing is won.
    """
    whole = [
        F.pad(domain.features, (0, 1), value=1.0) if domain.bias else domain.features for domain in domains
    ]
    samples, width = sum(map(len, whole)), whole[0].shape[1]
    if samples >= width or samples * domains[0].residual.shape[1] < 2 * count:
        return list(domains)
    basis = torch.linalg.qr(torch.cat(whole).T)[0]
    return [
        replace(domain, features=features @ basis, bias=False)
        for domain, features in zip(domains, whole, strict=True)
    ]


def _noise_outside(
    domains: Sequence[HeadDerivatives], vectors: Tensor, largest: float, forms: Sequence[Tensor]
) -> float:
    """By how much chance enlarges the largest eigenvalue outside the leading eigenvectors' space.

    Second-order perturbation, ``E ‖E v‖² / λ`` over that part of the noise ``E``, all eigenvalues there
    taken as 0. A ``λ`` smaller than the noise is kept from blowing up the term.

    Args:
        domains: The two domains.
        vectors: Leading eigenvectors of the difference, the first one ``v``, ``(k, C, d+1)``.
        largest: ``λ``.
        forms: ``v_jᵀ Φ_i v_l`` of each domain's samples, ``(n, k, k)``.

    Returns:
        The enlargement, at least 0.
    """
    inside = total = 0.0
    for domain, form in zip(domains, forms, strict=True):
        inside += float(form[:, 0].var(0).sum()) / len(form)
        images, mean_image = _curved_squares(domain, vectors[0]), domain.hvp(vectors[0]).double()
        total += float(images.mean() - mean_image.square().sum()) / (len(domain) - 1)
    outside = max(0.0, total - inside)
    return outside / _or_one(largest + outside**0.5)


def _bilinear_forms(domain: HeadDerivatives, vectors: Tensor) -> Tensor:
    """``v_jᵀ Φ_i v_l`` of each sample's Hessian ``Φ_i = A_i ⊗ z̃_i z̃_iᵀ``, ``(n, k, k)``, float64.

    Args:
        domain: ``n`` samples.
        vectors: ``(k, C, d+1)``.

    Returns:
        ``(n, k, k)``.
    """
    projected = project(domain.features, vectors, domain.bias)
    return (projected @ domain.curvature.apply(projected).transpose(1, 2)).double()


def _curved_squares(domain: HeadDerivatives, vector: Tensor) -> Tensor:
    """``‖Φ_i v‖²`` of each sample, ``(n,)``, float64."""
    projected = project(domain.features, vector.unsqueeze(0), domain.bias)
    curved = domain.curvature.apply(projected).squeeze(1)
    return row_squares(curved) * (domain.bias + row_squares(domain.features))


def _about_mean(values: Tensor) -> Tensor:
    """Values less their mean; NaN where there is only one, which nothing can be said of."""
    return values - values.mean() if len(values) > 1 else torch.full_like(values, torch.nan)


def _or_one(value: float) -> float:
    """The value as a divisor."""
    return value if value > 0 else 1.0
