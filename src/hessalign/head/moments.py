r"""Weighted moments of features: the sums over samples that all head derivatives are made of.

Each is a sum over rows of ``z̃ = (z, 1)``. The three with a quadratic or repeated use of the features have a
backward pass written by hand. Autograd would take the same products but pass over the features several
times, and for full-batch training that memory traffic is the cost: here rows are taken in groups that stay
in the processor's cache while everything that needs them is computed.
"""

from collections.abc import Iterable, Iterator
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hessalign.head.curvature import Curvature

# Rows of features handled at once: a group of usual width should fit a processor's cache.
ROWS_IN_CACHE = 1024


def weighted_sum(features: Tensor, weights: Tensor) -> Tensor:
    """``Σ_i w_i z̃_iᵀ``.

    Args:
        features: ``(n, d)``, without the constant feature, here and below.
        weights: ``(n, k)``.

    Returns:
        ``(k, d+1)``, the constant feature last.
    """
    return torch.cat([weights.T @ features, weights.sum(0).unsqueeze(1)], dim=1)


def weighted_sum_of_squares(features: Tensor, weights: Tensor) -> Tensor:
    """``Σ_i w_i (z̃_i²)ᵀ``, squares element-wise.

    Args:
        features: ``(n, d)``.
        weights: ``(n, k)``.

    Returns:
        ``(k, d+1)``.
    """
    result: Tensor = _WeightedSumOfSquares.apply(features, weights)
    return result


def weighted_gram(features: Tensor, weights: Tensor) -> Tensor:
    """``Σ_i w_i z̃_i z̃_iᵀ``.

    Args:
        features: ``(n, d)``.
        weights: ``(n,)``.

    Returns:
        ``(d+1, d+1)``, symmetric.
    """
    result: Tensor = _WeightedGram.apply(features, weights)
    return result


def curved_sum(features: Tensor, curvature: Curvature, directions: Tensor) -> Tensor:
    """``Σ_i (A_i V z̃_i) z̃_iᵀ`` for each direction ``V``: n times the Hessian's product with it.

    Args:
        features: ``(n, d)``.
        curvature: Of the ``n`` samples.
        directions: ``(k, C, d+1)``.

    Returns:
        ``(k, C, d+1)``.
    """
    result: Tensor = _CurvedSum.apply(features, curvature.values, directions, type(curvature))
    return result


def _cached_rows(features: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Groups of rows: features with the constant one appended, and the same rows of the others."""
    split = [tensor.split(ROWS_IN_CACHE) for tensor in (features, *others)]
    for row_features, *row_others in zip(*split, strict=True):
        yield F.pad(row_features, (0, 1), value=1.0), *row_others


class _WeightedSumOfSquares(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor, weights: Tensor) -> Tensor:
        return _total(
            rows.square().mT @ row_weights for rows, row_weights in _cached_rows(features, weights)
        ).mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor]:
        features, weights = ctx.saved_tensors
        for_features, for_weights = [], []
        for rows, row_weights in _cached_rows(features, weights):
            for_weights.append(rows.square() @ outputs[0].mT)
            for_features.append(2 * (row_weights @ outputs[0] * rows)[:, :-1])
        return torch.cat(for_features), torch.cat(for_weights)


class _WeightedGram(torch.autograd.Function):
    """One matrix product on the way back, where autograd takes two.

    The result is symmetric, so with ``S = Ġ + Ġᵀ`` the derivatives are ``w ⊙ (Z̃ S)`` for ``Z̃`` and half the
    row sums of ``Z̃ ⊙ (Z̃ S)`` for ``w``.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor, weights: Tensor) -> Tensor:
        return _total(
            (row_weights.unsqueeze(1) * rows).mT @ rows
            for rows, row_weights in _cached_rows(features, weights)
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor]:
        features, weights = ctx.saved_tensors
        symmetric = outputs[0] + outputs[0].mT
        for_features, for_weights = [], []
        for rows, row_weights in _cached_rows(features, weights):
            product = rows @ symmetric
            for_features.append(row_weights.unsqueeze(1) * product[:, :-1])
            for_weights.append((rows * product).sum(1) / 2)
        return torch.cat(for_features), torch.cat(for_weights)


class _CurvedSum(torch.autograd.Function):
    """One pass over the features on the way back.

    With ``U = Z̃ Vᵀ``, ``S_i = A_i U_i`` and an incoming ``Ḣ``, ``Ṡ = Z̃ Ḣᵀ`` gives the derivatives for ``A``
    and ``U`` through the small map ``(A, U) ↦ S``; then ``Ż = S Ḣ + U̇ V`` and ``V̇ = U̇ᵀ Z̃``.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor, values: Tensor, directions: Tensor, kind: type[Curvature]) -> Tensor:
        flat = directions.flatten(0, 1)
        total = _total(
            kind(row_values).apply((rows @ flat.mT).unflatten(1, directions.shape[:2])).flatten(1).mT @ rows
            for rows, row_values in _cached_rows(features, values)
        )
        return total.view_as(directions)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.kind = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        features, values, directions = ctx.saved_tensors
        shape = directions.shape[:2]
        flat, incoming = directions.flatten(0, 1), outputs[0].flatten(0, 1)
        both = torch.cat([incoming, flat])[:, :-1]

        def curve(row_values: Tensor, projected: Tensor) -> Tensor:
            curved: Tensor = ctx.kind(row_values).apply(projected)
            return curved

        for_features, for_values, for_directions = [], [], []
        for rows, row_values in _cached_rows(features, values):
            projected = (rows @ flat.mT).unflatten(1, shape)
            curved, pull_back = torch.func.vjp(curve, row_values, projected)[:2]
            for_row_values, for_projected = pull_back((rows @ incoming.mT).unflatten(1, shape))
            for_values.append(for_row_values)
            for_directions.append(for_projected.flatten(1).mT @ rows)
            for_features.append(torch.cat([curved.flatten(1), for_projected.flatten(1)], dim=1) @ both)
        return (
            torch.cat(for_features),
            torch.cat(for_values),
            _total(for_directions).view_as(directions),
            None,
        )


def _total(parts: Iterable[Tensor]) -> Tensor:
    return reduce(torch.add, parts)
