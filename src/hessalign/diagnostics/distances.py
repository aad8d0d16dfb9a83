r"""Every pair's distances: values, intervals, and what each sample contributes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from hessalign.diagnostics.bootstrap import (
    Interval,
    resampled_means,
    spectral_interval,
    squared_distance_interval,
)
from hessalign.diagnostics.means import DomainMeans
from hessalign.diagnostics.spectra import bilinear_forms, curved_squares
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
        interval: Without what chance adds, and with its interval; None where none was asked for.
        influences: Of the samples of the first and of the second domain: by how much, to first order, the
            distance would shrink if the sample were left out.
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
    """Distances ``‖μ_e − μ_f‖`` of all pairs.

    Args:
        means: Of gradients, Hessians or diagonals.
        replicates: Of the bootstrap; 0 for no intervals.
        level: Of the intervals.
        generator: Of the draws.
    """
    draws = resampled_means(means.products, means.sizes, replicates, generator) if replicates else None
    noise = means.noise()
    result = []
    for first, second in combinations(range(len(means.sizes)), 2):
        squared = float(means.distances[first, second])
        distance = squared**0.5
        limits = None
        if draws is not None:
            first_draws, second_draws = (
                draws[index][:, first] - draws[index][:, second] for index in (first, second)
            )
            changes = 2 * (first_draws - second_draws)
            limits = squared_distance_interval(squared, float(noise[first, second]), changes, level)
        scale = float(means.norms[first] * means.norms[second]) ** 0.25
        own = means.influences(first, second)
        sides = zip((1, -1), own, (first, second), strict=True)
        influences = [
            sign * (values - values.mean()) / (_or_one(distance) * (means.sizes[index] - 1))
            for sign, values, index in sides
        ]
        result.append(
            PairDistance(
                first,
                second,
                distance,
                distance / _or_one(scale),
                limits,
                (influences[0], influences[1]),
                (means.rows[first], means.rows[second]),
            )
        )
    return result


def spectral_distances(
    domains: Sequence[HeadDerivatives],
    largest: Sequence[float],
    replicates: int,
    level: float,
    generator: np.random.Generator,
) -> list[PairDistance]:
    """Distances ``‖H_e − H_f‖₂`` of all pairs.

    Args:
        domains: Derivatives of each domain.
        largest: ``‖H_e‖₂`` of each domain.
        replicates: Of the bootstrap; 0 for no intervals.
        level: Of the intervals.
        generator: Of the draws.
    """
    return [
        _spectral_distance(
            domains, (first, second), (largest[first] * largest[second]) ** 0.5, replicates, level, generator
        )
        for first, second in combinations(range(len(domains)), 2)
    ]


def _spectral_distance(
    domains: Sequence[HeadDerivatives],
    pair: tuple[int, int],
    scale: float,
    replicates: int,
    level: float,
    generator: np.random.Generator,
) -> PairDistance:
    chosen = [domains[index] for index in pair]
    first, second = chosen
    values, vectors = leading_eigenpairs(
        lambda v: first.hvp(v) - second.hvp(v), first.gradient(), MIXING_EIGENVALUES
    )
    values = values.double()
    modulus, direction = abs(float(values[0])), (1 if values[0] >= 0 else -1)
    forms = [bilinear_forms(domain, vectors) for domain in chosen]
    sizes = [len(domain) for domain in chosen]
    limits = None
    if replicates:
        draws = resampled_means([form.flatten(1) for form in forms], sizes, replicates, generator)
        changes = (draws[0] - draws[1]).view(-1, *forms[0].shape[1:])
        limits = spectral_interval(values, changes, _noise_outside(chosen, vectors, modulus, forms), level)
    leading = [form[:, 0, 0] for form in forms]
    sides = zip((direction, -direction), leading, sizes, strict=True)
    influences = [sign * (form - form.mean()) / (size - 1) for sign, form, size in sides]
    return PairDistance(
        pair[0],
        pair[1],
        modulus,
        modulus / _or_one(scale),
        limits,
        (influences[0], influences[1]),
        (torch.arange(sizes[0]), torch.arange(sizes[1])),
    )


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
    """
    inside = total = 0.0
    for domain, form in zip(domains, forms, strict=True):
        inside += float(form[:, 0].var(0).sum()) / len(form)
        images, mean_image = curved_squares(domain, vectors[0]), domain.hvp(vectors[0]).double()
        total += float(images.mean() - mean_image.square().sum()) / (len(domain) - 1)
    outside = max(0.0, total - inside)
    return outside / _or_one(largest + outside**0.5)


def _or_one(value: float) -> float:
    """The value as a divisor."""
    return value if value > 0 else 1.0
