r"""Sums over samples of products of features, with hand-written derivatives where autograd's would cost more.

All take features ``(..., n, d)`` without the constant feature, and weights that already hold each sample's
share in the mean. With ``bias`` the constant feature's column comes last.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Bend = Callable[[int, Tensor, Tensor], Tensor]

# Rows of features multiplied at once: a group should fit a processor's cache.
ROWS_IN_CACHE = 1024
# Fewer rows than this are not worth a matrix product of their own.
ROWS_IN_PANEL = 24


def weighted_sum(features: Tensor, weights: Tensor, bias: bool) -> Tensor:
    """``Σ_i w_i z̃_iᵀ`` for weights ``(..., n, k)``: ``(..., k, d+1)``."""
    return _with_bias(weights.mT @ features, weights, bias)


def weighted_squares(features: Tensor, weights: Tensor, bias: bool) -> Tensor:
    """``Σ_i w_i ⊗ z̃_i²`` for weights ``(..., n, k)``: ``(..., k, d+1)``."""
    squares: Tensor = _WeightedSquares.apply(features, weights)
    return _with_bias(squares, weights, bias)


def weighted_gram(features: Tensor, weights: Tensor, bias: bool) -> Tensor:
    """``Σ_i w_i z̃_i z̃_iᵀ`` for weights ``(..., n)``: ``(..., d+1, d+1)``, symmetric."""
    block: Tensor = _WeightedGram.apply(features, weights, bias)
    return block


def gram(features: Tensor, bias: bool) -> tuple[Tensor, Tensor]:
    """``K_ij = z̃_iᵀ z̃_j``, ``(n, n)``, twice: the second one has the derivative for its first factor alone.

    So ``z̃_j`` counts as a constant in the second one, and both need one matrix product in each direction.
    """
    both: tuple[Tensor, Tensor] = _Gram.apply(features, bias)
    return both


def hgp_products(
    features: Sequence[Tensor],
    residuals: Sequence[Tensor],
    curvatures: Sequence[Tensor],
    bend: Bend,
    bias: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients ``G_e`` and products with ``H_e`` of both ``G_e`` and their mean, of large domains.

    Args:
        features: ``(n_e, d)`` for each domain.
        residuals: ``(n_e, C)``, times each sample's share.
        curvatures: What determines the curvature of each domain's samples.
        bend: Of a domain's index, vectors ``(n_e, 2 C)`` and curvature: the curvature times the vectors and
            times each sample's share, ``(n_e, 2 C)``.
        bias: Whether the head has a bias.

    Returns:
        ``(m, C, d+1)`` and ``(m, 2 C, d+1)``.
    """
    found: tuple[Tensor, ...] = _HGPProducts.apply(bend, bias, *features, *residuals, *curvatures)
    return found[0], found[1]


def _with_bias(sums: Tensor, weights: Tensor, bias: bool) -> Tensor:
    return torch.cat([sums, weights.sum(-2).unsqueeze(-1)], dim=-1) if bias else sums


class _Gram(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor, bias: bool) -> tuple[Tensor, Tensor]:
        products = _symmetric_product(features) + float(bias)
        return products, products.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, bool], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        (features,) = ctx.saved_tensors
        whole, one_sided = outputs
        return (whole + whole.mT + one_sided) @ features, None


def _symmetric_product(features: Tensor) -> Tensor:
    """``Z Zᵀ``; what lies below the diagonal is copied from above, which saves three eighths of the work."""
    size = len(features)
    if size < 4 * ROWS_IN_PANEL:
        return features @ features.mT
    products = features.new_empty(size, size)
    for start in range(0, size, -(-size // 4)):
        rows = slice(start, start - (-size // 4))
        products[rows, start:] = features[rows] @ features[start:].mT
        products[start:, rows] = products[rows, start:].mT
    return products


class _WeightedGram(torch.autograd.Function):
    """``Z̃ᵀ diag(w) Z̃``, with a backward pass of one matrix product where autograd would take two.

    The result is symmetric, so with ``S = Ġ + Ġᵀ`` the derivatives are ``w ⊙ (Z̃ S)`` for ``Z̃`` and half
    the row sums of ``Z̃ ⊙ (Z̃ S)`` for ``w``: both need the same product. Rows are taken in groups that stay
    in the processor's cache.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor, weights: Tensor, bias: bool) -> Tensor:
        width = features.shape[-1] + bias
        step = width if width < 4 * ROWS_IN_PANEL else -(-width // 4)
        starts = range(0, width, step)
        panels: list[Tensor] | None = None
        for short, group in _groups(features, weights.unsqueeze(-1)):
            rows = _augmented(short, bias)
            weighted = group * rows
            # What lies below the diagonal is copied from above, which saves three eighths of the work.
            found = [weighted[..., start : start + step].mT @ rows[..., start:] for start in starts]
            panels = found if panels is None else list(map(torch.add, panels, found))
        assert panels is not None
        if len(panels) == 1:
            return panels[0]
        upper = [F.pad(panel, (start, 0)) for start, panel in zip(starts, panels, strict=True)]
        block = torch.cat(upper, dim=-2)
        return block.triu() + block.triu(1).mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.bias = inputs[2]

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        features, weights = ctx.saved_tensors
        symmetric = outputs[0] + outputs[0].mT
        for_features, for_weights = [], []
        for short, group in _groups(features, weights.unsqueeze(-1)):
            rows = _augmented(short, ctx.bias)
            product = rows @ symmetric
            for_features.append(group * product[..., : features.shape[-1]])
            for_weights.append((rows * product).sum(-1) / 2)
        return _joined(for_features, -2), _joined(for_weights, -1), None


class _HGPProducts(torch.autograd.Function):
    """Gradients ``G_e`` and products ``H_e [G_e, Ḡ]`` of large domains, with few passes over their features.

    ``G_e = R_eᵀ Z̃_e``, ``U_e = Z̃_e [G_e, Ḡ]ᵀ``, ``S_e = a A_e U_e`` and ``P_e = S_eᵀ Z̃_e`` each give the
    features a derivative of low rank. Together they are one product, ``[S, U̇, R] [Ṗ, [G, Ḡ], Ġ]``, where
    autograd would write and add three matrices of the features' size.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(bend: Bend, bias: bool, *tensors: Tensor) -> tuple[Tensor, ...]:
        count = len(tensors) // 3
        features, residuals, curvatures = tensors[:count], tensors[count : 2 * count], tensors[2 * count :]
        gradients = torch.stack([weighted_sum(z, r, bias) for z, r in zip(features, residuals, strict=True)])
        directions = _with_mean(gradients)
        projected = [_project(z, v, bias) for z, v in zip(features, directions, strict=True)]
        curved = [bend(index, u, c) for index, (u, c) in enumerate(zip(projected, curvatures, strict=True))]
        products = torch.stack([weighted_sum(z, s, bias) for z, s in zip(features, curved, strict=True)])
        return gradients, products, *projected

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.bend, ctx.bias, ctx.count = inputs[0], inputs[1], len(inputs[2:]) // 3
        ctx.save_for_backward(*inputs[2:], output[0], *output[2:])

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        count, bias = ctx.count, ctx.bias
        saved = ctx.saved_tensors
        features, residuals, curvatures = (
            saved[:count],
            saved[count : 2 * count],
            saved[2 * count : 3 * count],
        )
        gradients, projected = saved[3 * count], saved[3 * count + 1 :]
        directions = _with_mean(gradients)
        rows, for_curvatures, for_directions = [], [], []
        for index in range(count):
            bend: Callable[..., Any] = partial(ctx.bend, index)
            curved, pull_back = torch.func.vjp(bend, projected[index], curvatures[index])[:2]
            bent, for_curvature = pull_back(_project(features[index], outputs[1][index], bias))
            bent = bent + outputs[2 + index]
            rows.append((curved, bent))
            for_curvatures.append(for_curvature)
            for_directions.append(weighted_sum(features[index], bent, bias))
        directed = torch.stack(for_directions)
        size = gradients.shape[1]
        for_gradients = outputs[0] + directed[:, :size] + directed[:, size:].mean(0)
        for_features, for_residuals = [], []
        for index, (curved, bent) in enumerate(rows):
            left = torch.cat([curved, bent, residuals[index]], dim=1)
            right = torch.cat([outputs[1][index], directions[index], for_gradients[index]])
            for_features.append(left @ right[:, : features[index].shape[1]])
            for_residuals.append(_project(features[index], for_gradients[index], bias))
        return None, None, *for_features, *for_residuals, *for_curvatures


def _with_mean(gradients: Tensor) -> Tensor:
    """``[G_e, Ḡ]``, ``(m, 2 C, d+1)``."""
    return torch.cat([gradients, gradients.mean(0).expand_as(gradients)], dim=1)


def _project(features: Tensor, vectors: Tensor, bias: bool) -> Tensor:
    """``Z̃ Vᵀ`` for vectors ``(k, d+1)``."""
    if not bias:
        return features @ vectors.mT
    return torch.addmm(vectors[:, -1], features, vectors[:, :-1].contiguous().mT)


class _WeightedSquares(torch.autograd.Function):
    """``Σ_i w_i z_i²`` for weights ``(..., n, k)``: ``(..., k, d)``, without a tensor of all squares.

    With ``P = W Ġ`` the derivatives are ``2 Z ⊙ P`` for ``Z`` and ``Z² Ġᵀ`` for ``W``. Rows are taken in
    groups that stay in the processor's cache.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor, weights: Tensor) -> Tensor:
        return reduce(torch.add, [group.mT @ rows.square() for rows, group in _groups(features, weights)])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor]:
        features, weights = ctx.saved_tensors
        doubled = 2 * outputs[0]
        for_features, for_weights = [], []
        for rows, group in _groups(features, weights):
            for_features.append((group @ doubled) * rows)
            for_weights.append(rows.square() @ outputs[0].mT)
        return _joined(for_features, -2), _joined(for_weights, -2)


def _groups(features: Tensor, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Groups of rows that fit a processor's cache, and their weights."""
    return list(zip(features.split(ROWS_IN_CACHE, -2), weights.split(ROWS_IN_CACHE, -2), strict=True))


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    """All groups' rows; one alone is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _augmented(rows: Tensor, bias: bool) -> Tensor:
    """Rows with the constant feature appended, for a head with bias."""
    return F.pad(rows, (0, 1), value=1.0) if bias else rows
