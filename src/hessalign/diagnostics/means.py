r"""Distances between domain means of per-sample quantities, with what sampling does to them.

Gradient, Hessian and its diagonal are all means ``μ_e = (1/n_e) Σ_i φ_i`` of something each sample has. For a
squared distance ``‖μ_e − μ_f‖²`` three things are then known in closed form, without holding a ``φ_i``: the
inner products ``⟨φ_i, μ_f⟩``, which tell what each sample contributes; the norms ``‖φ_i‖²``, which tell by
how much chance alone lengthens the distance; and the distance itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Self

import torch
from torch import Tensor

from hessalign.head import HeadDerivatives


@dataclass(frozen=True)
class Pairs:
    """Pairs of domains that are compared in full; of all others only what needs no single sample is known.

    Attributes:
        domains: Number of domains, ``m``.
        chosen: The pairs, ascending, each with its smaller index first.
    """

    domains: int
    chosen: tuple[tuple[int, int], ...]

    @classmethod
    def all_of(cls, domains: int) -> Self:
        """Every pair."""
        return cls(domains, tuple(combinations(range(domains), 2)))

    @property
    def are_all(self) -> bool:
        """Whether no pair is left out."""
        return len(self.chosen) == self.domains * (self.domains - 1) // 2

    @cached_property
    def partners(self) -> list[list[int]]:
        """For each domain itself and those that it is compared with, ascending; empty if with none."""
        found: list[set[int]] = [set() for _ in range(self.domains)]
        for pair in self.chosen:
            for index in pair:
                found[index] |= set(pair)
        return list(map(sorted, found))


@dataclass(frozen=True, eq=False)
class DomainMeans:
    """A quantity's means in ``m`` domains.

    Attributes:
        distances: ``‖μ_e − μ_f‖²``, ``(m, m)``, float64.
        norms: ``‖μ_e‖²``, ``(m,)``, float64.
        mean_squares: ``(1/n_e) Σ_i ‖φ_i‖²``, ``(m,)``, float64.
        products: For each domain ``⟨φ_i, μ_f − c⟩`` of its samples, ``(rows, k)``, float64, for its ``k``
            partners ``f``; the centre ``c`` is the same for all ``f``, and only differences over ``f`` are
            used.
        rows: For each domain the samples that the rows belong to: all, or a random part of a large domain.
        sizes: ``n_e``.
        pairs: Which domains have which partners.
    """

    distances: Tensor
    norms: Tensor
    mean_squares: Tensor
    products: list[Tensor]
    rows: list[Tensor]
    sizes: list[int]
    pairs: Pairs

    def noise(self) -> Tensor:
        """How much chance adds to each squared distance on average, ``(m, m)``.

        ``tr Σ_e / n_e + tr Σ_f / n_f``, the covariances' traces estimated without bias; NaN where a domain
        has a single sample.

        Returns:
            The expected lengthening of each pair's square.
        """
        sizes = torch.tensor(self.sizes, dtype=torch.float64)
        traces = (self.mean_squares - self.norms).clamp(min=0) * sizes / (sizes - 1)
        shares = torch.where(sizes > 1, traces / sizes, torch.nan)
        return shares.unsqueeze(0) + shares.unsqueeze(1)

    def scales(self) -> Tensor:
        """``√(‖μ_e‖ ‖μ_f‖)``, ``(m, m)``; 1 where a mean is zero."""
        scales = (self.norms.unsqueeze(0) * self.norms.unsqueeze(1)) ** 0.25
        return torch.where(scales > 0, scales, 1.0)

    def debiased(self) -> Tensor:
        """Distances without what chance adds, ``(m, m)``; NaN where that is not known."""
        return (self.distances - self.noise()).clamp(min=0).sqrt()

    def column(self, index: int, other: int) -> int:
        """Where a domain's products have another one."""
        return self.pairs.partners[index].index(other)

    def influences(self, first: int, second: int) -> tuple[Tensor, Tensor]:
        """``⟨φ_i, μ_first − μ_second⟩`` of the samples of both domains, ``(rows,)`` each.

        The difference of their two means is the squared distance.

        Returns:
            Of the first domain's samples, and of the second one's.
        """
        pair = [
            self.products[index][:, self.column(index, first)]
            - self.products[index][:, self.column(index, second)]
            for index in (first, second)
        ]
        return pair[0], pair[1]


def gradient_means(domains: Sequence[HeadDerivatives], pairs: Pairs | None = None) -> DomainMeans:
    """Gradients: ``φ_i = r_i z̃_iᵀ``.

    Args:
        domains: Derivatives of ``m`` domains.
        pairs: Those to compare in full; by default all.

    Returns:
        Their means and distances.
    """
    pairs = Pairs.all_of(len(domains)) if pairs is None else pairs
    gradients = torch.stack([domain.gradient() for domain in domains])
    centred = gradients - gradients.mean(0)
    products = [
        _bilinear(domain.residual, domain.features, centred[partners], domain.bias)
        for domain, partners in zip(domains, pairs.partners, strict=True)
    ]
    squares = [
        row_squares(domain.residual) * (domain.bias + row_squares(domain.features)) for domain in domains
    ]
    return _means_of_matrices(gradients, products, squares, pairs)


def diagonal_means(domains: Sequence[HeadDerivatives], pairs: Pairs | None = None) -> DomainMeans:
    """Diagonals of the Hessians: ``φ_i = diag(A_i) ⊗ z̃_i²``.

    Args:
        domains: Derivatives of ``m`` domains.
        pairs: Those to compare in full; by default all.

    Returns:
        Their means and distances.
    """
    pairs = Pairs.all_of(len(domains)) if pairs is None else pairs
    diagonals = torch.stack([domain.diagonal() for domain in domains])
    centred = diagonals - diagonals.mean(0)
    products, squares = [], []
    for domain, partners in zip(domains, pairs.partners, strict=True):
        curvature, squared = domain.curvature.diagonal(), domain.features.square()
        products.append(_bilinear(curvature, squared, centred[partners], domain.bias))
        squares.append(row_squares(curvature) * (domain.bias + row_squares(squared)))
    return _means_of_matrices(diagonals, products, squares, pairs)


def row_squares(values: Tensor) -> Tensor:
    """Squared length of each row, ``(n,)``, float64."""
    return values.double().square().sum(1)


def _means_of_matrices(
    means: Tensor, products: list[Tensor], squares: list[Tensor], pairs: Pairs
) -> DomainMeans:
    return DomainMeans(
        distances=torch.stack([(means - mean).double().square().sum((1, 2)) for mean in means]),
        norms=means.double().square().sum((1, 2)),
        mean_squares=torch.stack([values.mean() for values in squares]),
        products=products,
        rows=[torch.arange(len(values)) for values in products],
        sizes=[len(values) for values in products],
        pairs=pairs,
    )


def _bilinear(weights: Tensor, features: Tensor, means: Tensor, bias: bool) -> Tensor:
    """``w_iᵀ M_f z̃_i`` for each sample and each of ``k`` matrices ``M_f``, ``(n, k)``."""
    projected = project(features, means, bias)
    return torch.einsum("nmc,nc->nm", projected, weights).double()


def project(features: Tensor, vectors: Tensor, bias: bool) -> Tensor:
    """``V_j z̃_i`` of ``k`` matrices ``V_j``, ``(n, k, C)``."""
    flat = vectors.flatten(0, 1)
    rows = torch.addmm(flat[:, -1], features, flat[:, :-1].T) if bias else features @ flat.T
    return rows.view(len(features), *vectors.shape[:2])
