r"""Whole Hessians of ``m`` domains compared in the Frobenius norm, part by part, without forming one.

``z̃ z̃ᵀ`` has a corner of one, an edge ``z`` and a body ``z zᵀ``. So the Hessian has a part for the confidence,
one for the confidence-weighted features and one for their second moments, and squared distances add up over
them and over the rows of outputs. As in [hessalign.head.statistics][] there are two exact ways to sum, over
blocks of outputs and over pairs of samples; the cheaper one is taken.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from hessalign.diagnostics.means import DomainMeans
from hessalign.head import HeadDerivatives
from hessalign.head.gram import weighted_gram
from hessalign.head.statistics import ROWS_AT_ONCE

PARTS = 3
"""Corner, edge and body of ``z̃ z̃ᵀ``: orders 0, 1 and 2 in the features."""

# Multiplications that may be spent on the contributions of single samples of large domains.
CONTRIBUTION_BUDGET = 1e11
FEWEST_ROWS = 250


def hessian_means(
    domains: Sequence[HeadDerivatives], generator: torch.Generator
) -> tuple[DomainMeans, Tensor]:
    """Distances between Hessians, and their parts.

    Args:
        domains: Derivatives of ``m`` domains.
        generator: Draws the samples whose contributions are computed where there are too many.

    Returns:
        The means of ``φ_i = A_i ⊗ z̃_i z̃_iᵀ``, and the parts of the squared distances, ``(m, m, C, 3)``,
        by output (row of the Hessian) and by order in the features. They sum to ``distances``.
    """
    outputs, width = domains[0].residual.shape[1], domains[0].features.shape[1] + 1
    samples = sum(map(len, domains))
    blocks = max(len(domain.curvature.upper_pairs()) for domain in domains)
    by_blocks = samples * blocks * width**2
    by_samples = samples**2 * (width + outputs * min(outputs, 1 + blocks // outputs))
    return _by_blocks(domains, generator) if by_blocks <= by_samples else _by_samples(domains)


def _by_blocks(domains: Sequence[HeadDerivatives], generator: torch.Generator) -> tuple[DomainMeans, Tensor]:
    count, outputs = len(domains), domains[0].residual.shape[1]
    pairs = sorted({pair for domain in domains for pair in domain.curvature.upper_pairs()})
    rows = _contributing_rows(domains, len(pairs), generator)
    padded = [F.pad(domain.features, (0, 1), value=1.0) for domain in domains]
    contributing = [features[chosen] for features, chosen in zip(padded, rows, strict=True)]
    parts = torch.zeros(count, count, outputs, PARTS, dtype=torch.float64)
    norms = torch.zeros(count, dtype=torch.float64)
    products = [torch.zeros(len(chosen), count, dtype=torch.float64) for chosen in rows]
    for row, column in pairs:
        weights = [domain.curvature.entry(row, column) for domain in domains]
        blocks = torch.stack(
            [
                weighted_gram(domain.features, (weight / len(domain)).to(domain.features.dtype), bias=True)
                for domain, weight in zip(domains, weights, strict=True)
            ]
        )
        squares = torch.zeros(count, count, PARTS, dtype=torch.float64)
        for first, second in combinations(range(count), 2):
            squares[first, second] = squares[second, first] = _part_squares(blocks[first] - blocks[second])
        # An off-diagonal block stands in the Hessian twice: once in each of two rows of outputs.
        for output in {row, column}:
            parts[:, :, output] += squares
        times = 1 if row == column else 2
        norms += times * blocks.double().square().sum((1, 2))
        for index, (features, chosen) in enumerate(zip(contributing, rows, strict=True)):
            forms = torch.stack([((features @ block) * features).sum(1) for block in blocks], dim=1)
            products[index] += times * (weights[index][chosen].unsqueeze(1) * forms).double()
    return _assemble(domains, parts, norms, products, rows), parts


def _by_samples(domains: Sequence[HeadDerivatives]) -> tuple[DomainMeans, Tensor]:
    count, outputs = len(domains), domains[0].residual.shape[1]
    # Sums over i of ⟨φ_i, μ_f⟩ by output and part, from rows of the matrix of all ⟨φ_i, φ_j⟩.
    sums = torch.zeros(count, count, outputs, PARTS, dtype=torch.float64)
    products = [torch.zeros(len(domain), count, dtype=torch.float64) for domain in domains]
    chunk = max(1, ROWS_AT_ONCE**2 // sum(map(len, domains)))
    for output in range(outputs):
        curvatures = [_curvature_row(domain, output) for domain in domains]
        for first, domain in enumerate(domains):
            for start in range(0, len(domain), chunk):
                part_rows = slice(start, start + chunk)
                for second, other in enumerate(domains):
                    overlaps = domain.features[part_rows] @ other.features.T
                    weights = curvatures[first][part_rows] @ curvatures[second].T
                    for part, factor in enumerate(
                        (torch.ones_like(overlaps), 2 * overlaps, overlaps.square())
                    ):
                        values = (weights * factor).mean(1, dtype=torch.float64)
                        products[first][part_rows, second] += values
                        sums[first, second, output, part] += values.sum() / len(domain)
    own = torch.stack([sums[index, index] for index in range(count)])
    parts = (own.unsqueeze(0) + own.unsqueeze(1) - sums - sums.transpose(0, 1)).clamp(min=0)
    rows = [torch.arange(len(domain)) for domain in domains]
    return _assemble(domains, parts, own.sum((1, 2)), products, rows), parts


def _assemble(
    domains: Sequence[HeadDerivatives],
    parts: Tensor,
    norms: Tensor,
    products: list[Tensor],
    rows: list[Tensor],
) -> DomainMeans:
    mean_squares = [
        (domain.curvature.squares().double() * (1 + domain.features.double().square().sum(1)).square()).mean()
        for domain in domains
    ]
    return DomainMeans(
        distances=parts.sum((2, 3)),
        norms=norms,
        mean_squares=torch.stack(mean_squares),
        products=products,
        rows=rows,
        sizes=list(map(len, domains)),
    )


def _part_squares(block: Tensor) -> Tensor:
    """Squared norms of corner, edges and body of a block with the constant feature last, ``(3,)``."""
    squares = block.double().square()
    return torch.stack([squares[-1, -1], 2 * squares[-1, :-1].sum(), squares[:-1, :-1].sum()])


def _curvature_row(domain: HeadDerivatives, output: int) -> Tensor:
    """``A_i[output, :]`` of each sample, ``(n, C)``."""
    columns = range(domain.residual.shape[1])
    return torch.stack([domain.curvature.entry(output, column) for column in columns], dim=1)


def _contributing_rows(
    domains: Sequence[HeadDerivatives], blocks: int, generator: torch.Generator
) -> list[Tensor]:
    """All samples where their contributions are cheap, else a random part of each domain."""
    width = domains[0].features.shape[1] + 1
    budget = CONTRIBUTION_BUDGET / (blocks * len(domains) * width**2)
    share = min(1.0, budget / sum(map(len, domains)))
    rows = []
    for domain in domains:
        wanted = min(len(domain), max(FEWEST_ROWS, int(share * len(domain))))
        rows.append(torch.randperm(len(domain), generator=generator)[:wanted].sort().values)
    return rows
