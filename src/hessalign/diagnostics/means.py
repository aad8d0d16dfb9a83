r"""Distances between domain means of per-sample quantities, with what sampling does to them.

Gradient, Hessian and its diagonal are all means ``μ_e = (1/n_e) Σ_i φ_i`` of something each sample has. For a
squared distance ``‖μ_e − μ_f‖²`` three things are then known in closed form, without holding a ``φ_i``: the
inner products ``⟨φ_i, μ_f⟩``, which tell what each sample contributes; the norms ``‖φ_i‖²``, which tell by
how much chance alone lengthens the distance; and the distance itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hessalign.head import HeadDerivatives


@dataclass(frozen=True, eq=False)
class DomainMeans:
    """A quantity's means in ``m`` domains.

    Attributes:
        distances: ``‖μ_e − μ_f‖²``, ``(m, m)``, float64.
        norms: ``‖μ_e‖²``, ``(m,)``, float64.
        mean_squares: ``(1/n_e) Σ_i ‖φ_i‖²``, ``(m,)``, float64.
        products: For each domain ``⟨φ_i, μ_f − c⟩`` of its samples, ``(rows, m)``, float64; the centre ``c``
            is the same for all ``f``, and only differences over ``f`` are used.
        rows: For each domain the samples that the rows belong to: all, or a random part of a large domain.
        sizes: ``n_e``.
    """

    distances: Tensor
    norms: Tensor
    mean_squares: Tensor
    products: list[Tensor]
    rows: list[Tensor]
    sizes: list[int]

    def noise(self) -> Tensor:
        """How much chance adds to each squared distance on average, ``(m, m)``.

        ``tr Σ_e / n_e + tr Σ_f / n_f``, the covariances' traces estimated without bias.
        """
        sizes = torch.tensor(self.sizes, dtype=torch.float64)
        traces = (self.mean_squares - self.norms).clamp(min=0) * sizes / (sizes - 1)
        parts = traces / sizes
        return parts.unsqueeze(0) + parts.unsqueeze(1)

    def influences(self, first: int, second: int) -> tuple[Tensor, Tensor]:
        """``⟨φ_i, μ_first − μ_second⟩`` of the samples of both domains, ``(rows,)`` each.

        The difference of their two means is the squared distance.
        """
        pair = [self.products[index][:, first] - self.products[index][:, second] for index in (first, second)]
        return pair[0], pair[1]


def gradient_means(domains: Sequence[HeadDerivatives]) -> DomainMeans:
    """Gradients: ``φ_i = r_i z̃_iᵀ``."""
    gradients = torch.stack([domain.gradient() for domain in domains])
    centred = gradients - gradients.mean(0)
    products = [_bilinear(domain.residual, domain.features, centred) for domain in domains]
    squares = [_row_squares(domain.residual) * (1 + _row_squares(domain.features)) for domain in domains]
    return _means_of_matrices(gradients, products, squares)


def diagonal_means(domains: Sequence[HeadDerivatives]) -> DomainMeans:
    """Diagonals of the Hessians: ``φ_i = diag(A_i) ⊗ z̃_i²``."""
    diagonals = torch.stack([domain.diagonal() for domain in domains])
    centred = diagonals - diagonals.mean(0)
    products, squares = [], []
    for domain in domains:
        curvature, squared = domain.curvature.diagonal(), domain.features.square()
        products.append(_bilinear(curvature, squared, centred))
        squares.append(_row_squares(curvature) * (1 + _row_squares(squared)))
    return _means_of_matrices(diagonals, products, squares)


def pairwise_differences(means: Tensor) -> Tensor:
    """Squared elements of ``μ_e − μ_f``, ``(m, m, C, d+1)``, float64."""
    return (means.unsqueeze(1) - means.unsqueeze(0)).double().square()


def _means_of_matrices(means: Tensor, products: list[Tensor], squares: list[Tensor]) -> DomainMeans:
    return DomainMeans(
        distances=torch.stack([(means - mean).double().square().sum((1, 2)) for mean in means]),
        norms=means.double().square().sum((1, 2)),
        mean_squares=torch.stack([values.mean() for values in squares]),
        products=products,
        rows=[torch.arange(len(values)) for values in products],
        sizes=[len(values) for values in products],
    )


def _bilinear(weights: Tensor, features: Tensor, means: Tensor) -> Tensor:
    """``w_iᵀ M_f z̃_i`` for each sample and each of ``m`` matrices ``M_f``, ``(n, m)``."""
    flat = means.flatten(0, 1)
    projected = torch.addmm(flat[:, -1], features, flat[:, :-1].T).view(len(features), *means.shape[:2])
    return torch.einsum("nmc,nc->nm", projected, weights).double()


def _row_squares(values: Tensor) -> Tensor:
    return values.double().square().sum(1)
