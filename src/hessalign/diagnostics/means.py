r"""Distances between domain means of per-sample quantities, with what sampling does to them.

Gradient, Hessian and its diagonal are all means ``μ_e = (1/n_e) Σ_i φ_i`` of something each sample has. For a
squared distance ``‖μ_e − μ_f‖²`` three things are then known in closed form, without holding a ``φ_i``: the
inner products ``⟨φ_i, μ_f⟩``, which tell what each sample contributes; the norms ``‖φ_i‖²``, which tell by
how much chance alone lengthens the distance; and the distance itself.

Whole Hessians are compared in the Frobenius norm, part by part, and none is formed. ``z̃ z̃ᵀ`` has a corner of
one, an edge ``z`` and a body ``z zᵀ``. So the Hessian has a part for the confidence, one for the
confidence-weighted features and one for their second moments, and squared distances add up over them and over
the rows of outputs. As in ``hessalign.head.statistics`` there are two exact ways to sum, over blocks of
outputs and over pairs of samples; the cheaper one is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from hessalign.head import HeadDerivatives
from hessalign.head.gram import weighted_gram
from hessalign.head.statistics import ROWS_AT_ONCE

PARTS = 3
"""Corner, edge and body of ``z̃ z̃ᵀ``: orders 0, 1 and 2 in the features."""

NEAR = 1e-6
"""Share of their squares below which a squared distance is not left to a difference of inner products."""

# Products of pairs of samples, of several outputs, that are held at once: they stay in the processor's cache.
VALUES_AT_ONCE = 2**18
# Multiplications that may be spent on the contributions of single samples of large domains.
CONTRIBUTION_BUDGET = 1e11
FEWEST_ROWS = 250


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


def hessian_means(
    domains: Sequence[HeadDerivatives], generator: torch.Generator, pairs: Pairs | None = None
) -> tuple[DomainMeans, Tensor]:
    """Distances between Hessians, and their parts.

    Args:
        domains: Derivatives of ``m`` domains.
        generator: Draws the samples whose contributions are computed where there are too many.
        pairs: Those to compare in full; by default all.

    Returns:
        The means of ``φ_i = A_i ⊗ z̃_i z̃_iᵀ``, and the parts of the squared distances, ``(pairs, C, 3)``,
        by output (row of the Hessian) and by order in the features. They sum to the pairs' ``distances``.
    """
    pairs = Pairs.all_of(len(domains)) if pairs is None else pairs
    outputs, width = domains[0].residual.shape[1], domains[0].features.shape[1] + 1
    samples = sum(map(len, domains))
    blocks = max(len(domain.curvature.upper_pairs()) for domain in domains)
    of_products = width + outputs * min(outputs, 1 + blocks // outputs)
    by_blocks, by_samples = samples * blocks * width**2, samples**2 * of_products
    if not pairs.are_all:
        compared = sum(len(domains[first]) * len(domains[second]) for first, second in pairs.chosen)
        by_blocks += len(domains) ** 2 * blocks * width**2
        by_samples = samples**2 * (width + outputs) + 3 * compared * of_products
    return _by_blocks(domains, generator, pairs) if by_blocks <= by_samples else _by_samples(domains, pairs)


def row_squares(values: Tensor) -> Tensor:
    """Squared length of each row, ``(n,)``, float64."""
    return values.double().square().sum(1)


def project(features: Tensor, vectors: Tensor, bias: bool) -> Tensor:
    """``V_j z̃_i`` of ``k`` matrices ``V_j``, ``(n, k, C)``."""
    flat = vectors.flatten(0, 1)
    rows = torch.addmm(flat[:, -1], features, flat[:, :-1].T) if bias else features @ flat.T
    return rows.view(len(features), *vectors.shape[:2])


def _means_of_matrices(
    means: Tensor, products: list[Tensor], squares: list[Tensor], pairs: Pairs
) -> DomainMeans:
    first, second = torch.triu_indices(len(means), len(means), 1)
    distances = torch.zeros(len(means), len(means), dtype=torch.float64)
    # From differences, not from inner products: exact for domains that nearly agree.
    distances[first, second] = torch.pdist(means.flatten(1).double()).square()
    return DomainMeans(
        distances=distances + distances.T,
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


def _by_blocks(
    domains: Sequence[HeadDerivatives], generator: torch.Generator, pairs: Pairs
) -> tuple[DomainMeans, Tensor]:
    count, outputs, bias = len(domains), domains[0].residual.shape[1], domains[0].bias
    entries = _entries(domains)
    rows = _contributing_rows(domains, len(entries), pairs, generator)
    augmented = [F.pad(domain.features, (0, 1), value=1.0) if bias else domain.features for domain in domains]
    contributing = [features[chosen] for features, chosen in zip(augmented, rows, strict=True)]
    distances = torch.zeros(count, count, dtype=torch.float64)
    parts = torch.zeros(len(pairs.chosen), outputs, PARTS, dtype=torch.float64)
    norms = torch.zeros(count, dtype=torch.float64)
    products = [
        torch.zeros(len(chosen), len(partners), dtype=torch.float64)
        for chosen, partners in zip(rows, pairs.partners, strict=True)
    ]
    for row, column in entries:
        weights = [domain.curvature.entry(row, column) for domain in domains]
        blocks = torch.stack([_block(domain, row, column) for domain in domains])
        # An off-diagonal block stands in the Hessian twice: once in each of two rows of outputs.
        times = 1 if row == column else 2
        if not pairs.are_all:
            distances += times * _square_distances(blocks)
        for place, (first, second) in enumerate(pairs.chosen):
            parts[place, list({row, column})] += _part_squares(blocks[first] - blocks[second], bias)
        norms += times * blocks.double().square().sum((1, 2))
        for index, (features, chosen) in enumerate(zip(contributing, rows, strict=True)):
            if not pairs.partners[index]:
                continue
            forms = torch.stack(
                [((features @ blocks[other]) * features).sum(1) for other in pairs.partners[index]], dim=1
            )
            products[index] += times * (weights[index][chosen].unsqueeze(1) * forms).double()
    return _assemble(domains, distances, parts, norms, products, rows, pairs), parts


def _by_samples(domains: Sequence[HeadDerivatives], pairs: Pairs) -> tuple[DomainMeans, Tensor]:
    outputs, sizes = domains[0].residual.shape[1], list(map(len, domains))
    if pairs.are_all:
        distances = torch.zeros(len(domains), len(domains), dtype=torch.float64)
        norms = torch.zeros(len(domains), dtype=torch.float64)
    else:
        inner = _inner_products(domains)
        norms = inner.diagonal().clone()
        distances = (norms.unsqueeze(0) + norms.unsqueeze(1) - 2 * inner).clamp(min=0)
    parts = torch.zeros(len(pairs.chosen), outputs, PARTS, dtype=torch.float64)
    products = [
        torch.zeros(size, len(partners), dtype=torch.float64)
        for size, partners in zip(sizes, pairs.partners, strict=True)
    ]
    own: dict[int, Tensor] = {}
    for index, partners in enumerate(pairs.partners):
        if partners:
            by_row, _, own[index] = _pair_products(domains[index], domains[index])
            products[index][:, partners.index(index)] = by_row
            norms[index] = own[index].sum()
    for place, (first, second) in enumerate(pairs.chosen):
        by_row, by_column, cross = _pair_products(domains[first], domains[second])
        products[first][:, pairs.partners[first].index(second)] = by_row
        products[second][:, pairs.partners[second].index(first)] = by_column
        parts[place] = (own[first] + own[second] - 2 * cross).clamp(min=0)
        if parts[place].sum() < NEAR * (norms[first] + norms[second]):
            parts[place] = _exact_parts(domains[first], domains[second])
    rows = [torch.arange(size) for size in sizes]
    return _assemble(domains, distances, parts, norms, products, rows, pairs), parts


def _inner_products(domains: Sequence[HeadDerivatives]) -> Tensor:
    """``⟨H_e, H_f⟩``, ``(m, m)``, from all pairs of samples."""
    sizes = list(map(len, domains))
    features = torch.cat([domain.features for domain in domains])
    curvature = domains[0].curvature.join([domain.curvature for domain in domains[1:]])
    domain_of = torch.repeat_interleave(torch.arange(len(domains)), torch.tensor(sizes))
    sums = torch.zeros(len(domains), len(domains), dtype=torch.float64)
    # A few matrices of the chunk by all samples are held at once.
    chunk = max(1, ROWS_AT_ONCE**2 // (8 * len(features)))
    for start in range(0, len(features), chunk):
        rows = slice(start, start + chunk)
        overlaps = features[rows] @ features.T + float(domains[0].bias)
        values = (curvature.take(rows).inner(curvature) * overlaps.square()).split(sizes, dim=1)
        means = torch.stack([value.mean(1, dtype=torch.float64) for value in values], dim=1)
        sums.index_add_(0, domain_of[rows], means)
    inner = sums / torch.tensor(sizes).unsqueeze(1)
    return (inner + inner.T) / 2


def _pair_products(first: HeadDerivatives, second: HeadDerivatives) -> tuple[Tensor, Tensor, Tensor]:
    """``⟨φ_i, μ_f⟩`` of one domain's samples, ``⟨μ_e, φ_j⟩`` of the other's, and ``⟨μ_e, μ_f⟩`` by part."""
    outputs = first.residual.shape[1]
    by_row, by_column = (torch.zeros(len(domain), dtype=torch.float64) for domain in (first, second))
    cross = torch.zeros(outputs, PARTS, dtype=torch.float64)
    chunk = max(1, ROWS_AT_ONCE**2 // len(second))
    for start in range(0, len(first), chunk):
        rows = slice(start, start + chunk)
        overlaps = first.features[rows] @ second.features.T
        # Without a bias there is the body alone.
        factors = (torch.ones_like(overlaps), 2 * overlaps) if first.bias else ()
        curvature = first.curvature.take(rows)
        # Small domains have many outputs in one product, large ones each for itself.
        largest = max(overlaps.numel(), (len(overlaps) + len(second)) * outputs)
        step = max(1, VALUES_AT_ONCE // largest)
        for output in range(0, outputs, step):
            some = range(output, min(output + step, outputs))
            weights = curvature.rows(some) @ second.curvature.rows(some).mT
            for part, factor in enumerate((*factors, overlaps.square()), start=PARTS - 1 - len(factors)):
                values = (weights * factor).double()
                own = values.mean(2)
                by_row[rows] += own.sum(0)
                by_column += values.sum((0, 1)) / len(first)
                cross[some.start : some.stop, part] += own.sum(1) / len(first)
    return by_row, by_column, cross


def _exact_parts(first: HeadDerivatives, second: HeadDerivatives) -> Tensor:
    """Parts of the squared distance of two Hessians that nearly agree, from differences, ``(C, 3)``."""
    parts = torch.zeros(first.residual.shape[1], PARTS, dtype=torch.float64)
    for row, column in _entries([first, second]):
        difference = _block(first, row, column) - _block(second, row, column)
        parts[list({row, column})] += _part_squares(difference, first.bias)
    return parts


def _entries(domains: Sequence[HeadDerivatives]) -> list[tuple[int, int]]:
    """Places of blocks on and above the diagonal that are not all zero."""
    return sorted({entry for domain in domains for entry in domain.curvature.upper_pairs()})


def _block(domain: HeadDerivatives, row: int, column: int) -> Tensor:
    """A block of a domain's Hessian, ``(d+1, d+1)``."""
    weights = (domain.curvature.entry(row, column) / len(domain)).to(domain.features.dtype)
    return weighted_gram(domain.features, weights, bias=domain.bias)


def _assemble(
    domains: Sequence[HeadDerivatives],
    distances: Tensor,
    parts: Tensor,
    norms: Tensor,
    products: list[Tensor],
    rows: list[Tensor],
    pairs: Pairs,
) -> DomainMeans:
    chosen = set(pairs.chosen)
    near = distances < NEAR * (norms.unsqueeze(0) + norms.unsqueeze(1))
    for first, second in near.triu(1).nonzero().tolist() if not pairs.are_all else ():
        if (first, second) not in chosen:
            exact = _exact_parts(domains[first], domains[second]).sum()
            distances[first, second] = distances[second, first] = exact
    for (first, second), squared in zip(pairs.chosen, parts.sum((1, 2)), strict=True):
        distances[first, second] = distances[second, first] = squared
    mean_squares = [
        (domain.curvature.squares().double() * (domain.bias + row_squares(domain.features)).square()).mean()
        for domain in domains
    ]
    return DomainMeans(
        distances=distances,
        norms=norms,
        mean_squares=torch.stack(mean_squares),
        products=products,
        rows=rows,
        sizes=list(map(len, domains)),
        pairs=pairs,
    )


def _square_distances(blocks: Tensor) -> Tensor:
    """Squared distances of all blocks from their inner products, ``(m, m)``."""
    flat = (blocks.double() - blocks.double().mean(0)).flatten(1)
    products = flat @ flat.T
    sizes = products.diagonal()
    return (sizes.unsqueeze(0) + sizes.unsqueeze(1) - 2 * products).clamp(min=0)


def _part_squares(block: Tensor, bias: bool) -> Tensor:
    """Squared norms of corner, edges and body of a block with the constant feature last, ``(3,)``."""
    squares = block.double().square()
    if not bias:
        return torch.stack([squares.new_zeros(()), squares.new_zeros(()), squares.sum()])
    return torch.stack([squares[-1, -1], 2 * squares[-1, :-1].sum(), squares[:-1, :-1].sum()])


def _contributing_rows(
    domains: Sequence[HeadDerivatives], blocks: int, pairs: Pairs, generator: torch.Generator
) -> list[Tensor]:
    """All samples where their contributions are cheap, else a random part of each; none for no pairs."""
    if not pairs.chosen:
        return [torch.arange(0)] * len(domains)
    width = domains[0].features.shape[1] + 1
    most = max(map(len, pairs.partners))
    budget = CONTRIBUTION_BUDGET / (blocks * most * width**2)
    share = min(1.0, budget / sum(map(len, domains)))
    rows = []
    for domain in domains:
        wanted = min(len(domain), max(FEWEST_ROWS, int(share * len(domain))))
        rows.append(torch.randperm(len(domain), generator=generator)[:wanted].sort().values)
    return rows
