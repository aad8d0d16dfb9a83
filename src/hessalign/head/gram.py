r"""Inner products of head Hessians without forming them.

A domain's Hessian is ``H = (1/n) Σ_i A_i ⊗ z̃_i z̃_iᵀ``. Two exact ways lead to ``⟨H_e, H_f⟩_F``:

* by samples: ``(1/(n_e n_f)) Σ_ij ⟨A_i, A_j⟩ (z̃_iᵀ z̃_j)²``, cheap for minibatches of wide features;
* by blocks: ``Σ_ab ⟨H_e^{ab}, H_f^{ab}⟩`` over the ``(d+1, d+1)`` blocks of the outputs, cheap for many
  samples of few features.

[inner_products][] picks the cheaper one. Neither holds a ``C(d+1) × C(d+1)`` matrix.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hessalign.head.curvature import Curvature

# Rows of the sample-by-sample matrix held at once: bounds memory for large domains (4096 × n values).
ROWS_AT_ONCE = 4096
# Rows of features multiplied at once: a group should fit a processor's cache.
ROWS_IN_CACHE = 1024


def inner_products(features: Sequence[Tensor], curvatures: Sequence[Curvature]) -> Tensor:
    """Frobenius inner products between the Hessians of ``m`` domains.

    Args:
        features: One ``(n_e, d)`` tensor for each domain.
        curvatures: One curvature of ``n_e`` samples for each domain.

    Returns:
        ``K`` with ``K_ef = ⟨H_e, H_f⟩_F``, ``(m, m)``, differentiable.
    """
    if _blocks_are_cheaper(features, curvatures):
        return _by_blocks(features, curvatures)[0]
    return _by_samples(features, curvatures)


def inner_products_and_diagonals(
    features: Sequence[Tensor], curvatures: Sequence[Curvature]
) -> tuple[Tensor, Tensor]:
    """[inner_products][], and the Hessians' diagonals, which the way by blocks has at no cost.

    Returns:
        ``(m, m)`` and ``(m, C, d+1)``.
    """
    if _blocks_are_cheaper(features, curvatures):
        return _by_blocks(features, curvatures)
    diagonals = [
        hessian_diagonal(domain_features, curvature)
        for domain_features, curvature in zip(features, curvatures, strict=True)
    ]
    return _by_samples(features, curvatures), torch.stack(diagonals)


def hessian_diagonal(features: Tensor, curvature: Curvature) -> Tensor:
    """Diagonal of a Hessian, ``(1/n) Σ_i diag(A_i) ⊗ z̃_i²``, ``(C, d+1)``."""
    if len(features) <= ROWS_IN_CACHE:  # the squares stay in the cache, and autograd has less to call
        return weighted_mean(features.square(), curvature.diagonal())
    weights = curvature.diagonal() / len(features)
    squares: Tensor = _WeightedSquares.apply(features, weights)
    return torch.cat([squares, weights.sum(0).unsqueeze(1)], dim=1)


def weighted_mean(features: Tensor, weights: Tensor) -> Tensor:
    """``(1/n) Σ_i w_i z̃_iᵀ`` for features ``(n, d)`` and weights ``(n, k)``: ``(k, d+1)``."""
    weights = weights / len(features)
    return torch.cat([weights.T @ features, weights.sum(0).unsqueeze(1)], dim=1)


def hessian_block(features: Tensor, weights: Tensor) -> Tensor:
    """One block of a Hessian, ``(1/n) Σ_i w_i z̃_i z̃_iᵀ``.

    Args:
        features: ``(n, d)``, without the constant feature.
        weights: ``(n,)``, the curvature element ``A_i[a, b]`` of the block.

    Returns:
        ``(d+1, d+1)``, symmetric; the constant feature comes last.
    """
    block: Tensor = _WeightedGram.apply(features, weights / len(features))
    return block


def _blocks_are_cheaper(features: Sequence[Tensor], curvatures: Sequence[Curvature]) -> bool:
    """Compare multiplications: ``samples · blocks · d²`` against ``samples² · (d + 3 C)``."""
    samples, width = sum(map(len, features)), features[0].shape[1]
    outputs = curvatures[0].values.shape[1]
    blocks = max(len(curvature.upper_pairs()) for curvature in curvatures)
    return blocks * width**2 < samples * (width + 3 * outputs)


def _by_blocks(features: Sequence[Tensor], curvatures: Sequence[Curvature]) -> tuple[Tensor, Tensor]:
    products = features[0].new_zeros(len(features), len(features))
    diagonals = []
    pairs = {pair for curvature in curvatures for pair in curvature.upper_pairs()}
    for row, column in sorted(pairs):
        blocks = torch.stack(
            [
                hessian_block(domain_features, curvature.entry(row, column))
                for domain_features, curvature in zip(features, curvatures, strict=True)
            ]
        )
        multiplicity = 1 if row == column else 2
        products = products + multiplicity * (blocks.flatten(1) @ blocks.flatten(1).T)
        if row == column:
            diagonals.append(blocks.diagonal(dim1=1, dim2=2))
    return products, torch.stack(diagonals, dim=1)


def _by_samples(features: Sequence[Tensor], curvatures: Sequence[Curvature]) -> Tensor:
    sizes = [len(part) for part in features]
    all_features = torch.cat(list(features))
    all_curvatures = curvatures[0].join(curvatures[1:])
    averaging = torch.block_diag(*[all_features.new_full((size, 1), 1 / size) for size in sizes])
    total = all_features.new_zeros(len(sizes), len(sizes))
    row_sizes = [len(part) for part in averaging.split(ROWS_AT_ONCE)]
    for row_features, row_curvatures, row_averaging in zip(
        all_features.split(row_sizes),
        all_curvatures.split(row_sizes),
        averaging.split(row_sizes),
        strict=True,
    ):
        overlaps = row_features @ all_features.T + 1  # the constant feature adds one to every product
        products = overlaps.square() * row_curvatures.inner(all_curvatures)
        total = total + row_averaging.T @ products @ averaging
    return total


class _SumOverRows(torch.autograd.Function):
    """What the hand-written derivatives below share: the inputs are kept, and ``vmap`` works."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)


class _WeightedGram(_SumOverRows):
    """``Z̃ᵀ diag(w) Z̃``, with a backward pass of one matrix product where autograd would take two.

    The result is symmetric, so with ``S = Ġ + Ġᵀ`` the derivatives are ``w ⊙ (Z̃ S)`` for ``Z̃`` and half
    the row sums of ``Z̃ ⊙ (Z̃ S)`` for ``w``: both need the same product. Rows are taken in groups that stay
    in the processor's cache.
    """

    @staticmethod
    def forward(features: Tensor, weights: Tensor) -> Tensor:
        parts = [
            (row_weights * rows).mT @ rows for rows, row_weights in _cached_augmented_rows(features, weights)
        ]
        return reduce(torch.add, parts)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor]:
        features, weights = ctx.saved_tensors
        symmetric = outputs[0] + outputs[0].mT
        for_features, for_weights = [], []
        for rows, row_weights in _cached_augmented_rows(features, weights):
            product = rows @ symmetric
            for_features.append(row_weights * product[:, :-1])
            for_weights.append((rows * product).sum(1) / 2)
        return torch.cat(for_features), torch.cat(for_weights)


class _WeightedSquares(_SumOverRows):
    """``Σ_i w_i z_i²`` for weights ``(n, k)``: ``(k, d)``, without a tensor of all squares.

    With ``P = W Ġ`` the derivatives are ``2 Z ⊙ P`` for ``Z`` and ``Z² Ġᵀ`` for ``W``. Rows are taken in
    groups that stay in the processor's cache.
    """

    @staticmethod
    def forward(features: Tensor, weights: Tensor) -> Tensor:
        parts = [row_weights.mT @ rows.square() for rows, row_weights in _cached_rows(features, weights)]
        return reduce(torch.add, parts)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor]:
        features, weights = ctx.saved_tensors
        doubled = 2 * outputs[0]
        for_features, for_weights = [], []
        for rows, row_weights in _cached_rows(features, weights):
            for_features.append((row_weights @ doubled) * rows)
            for_weights.append(rows.square() @ outputs[0].mT)
        return torch.cat(for_features), torch.cat(for_weights)


def _cached_rows(features: Tensor, weights: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Groups of rows, and their weights."""
    yield from zip(features.split(ROWS_IN_CACHE), weights.split(ROWS_IN_CACHE), strict=True)


def _cached_augmented_rows(features: Tensor, weights: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Groups of rows with the constant feature appended, and their weights as a column."""
    for rows, row_weights in _cached_rows(features, weights):
        yield F.pad(rows, (0, 1), value=1.0), row_weights.unsqueeze(1)
