r"""Sums over samples of products of features, with hand-written derivatives where autograd's would cost more.

All take features ``(..., n, d)`` without the constant feature, and weights that already hold each sample's
share in the mean. With ``bias`` the constant feature's column comes last.

Sums are taken in the weights' type and their derivatives in the features'. So float32 features with float64
weights have sums whose differences keep their digits. What comes back is the derivative of such a difference,
which needs no more digits than the features have, and costs half of what it would in float64.
"""

from collections.abc import Sequence
from functools import reduce
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hessalign.head.losses import Curvature

# Rows of features multiplied at once: a group should fit a processor's cache.
ROWS_IN_CACHE = 1024
# Fewer rows than this are not worth a matrix product of their own.
ROWS_IN_PANEL = 24


def weighted_sum(features: Tensor, weights: Tensor, bias: bool) -> Tensor:
    """``Σ_i w_i z̃_iᵀ`` for weights ``(..., n, k)``: ``(..., k, d+1)``."""
    if features.dtype == weights.dtype:
        return _sum(features, weights, bias)
    sums: Tensor = _WeightedSum.apply(features, weights, bias)
    return sums


def weighted_squares(features: Tensor, weights: Tensor, bias: bool) -> Tensor:
    """``Σ_i w_i ⊗ z̃_i²`` for weights ``(..., n, k)``: ``(..., k, d+1)``."""
    squares: Tensor = _WeightedSquares.apply(features, weights, bias)
    return squares


def weighted_gram(features: Tensor, weights: Tensor, bias: bool) -> Tensor:
    """``Σ_i w_i z̃_i z̃_iᵀ`` for weights ``(..., n)``: ``(..., d+1, d+1)``, symmetric."""
    block: Tensor = _WeightedGram.apply(features, weights, bias)
    return block


def gram(features: Tensor, bias: bool, squares: bool = False) -> Tensor:
    """``K_ij = z̃_iᵀ z̃_j``, or ``z̃_i²·z̃_j²``, ``(n, n)``.

    A row of its derivative is a sum over all samples, in which those of equal domains cancel: that takes
    features in float64.

    Returns:
        ``(n, n)``.
    """
    products: Tensor = _Gram.apply(features, bias, squares)
    return products


def two_grams(features: Tensor, bias: bool) -> tuple[Tensor, Tensor]:
    """What ``gram`` gives, twice: the second one has the derivative for its first factor alone.

    So ``z̃_j`` counts as a constant in the second one, and both need one matrix product in each direction.

    Returns:
        ``K`` and ``K``, ``(n, n)`` each.
    """
    both: tuple[Tensor, Tensor] = _TwoGrams.apply(features, bias)
    return both


def hgp_products(
    features: Sequence[Tensor],
    residuals: Sequence[Tensor],
    curvatures: Sequence[Curvature],
    shares: Sequence[Tensor | float],
    dtype: torch.dtype,
    bias: bool,
    with_mean: bool,
    detached: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients ``G_e`` of domains, products ``H_e G_e`` and, if wanted, ``H̄ Ḡ``.

    Args:
        features: ``(b, n, d)`` for each block of ``b`` domains.
        residuals: ``(b, n, C)``.
        curvatures: Those of the ``b n`` samples of each block, of one class.
        shares: Share of each sample in its domain's mean, ``(b, n, 1)``, or a number.
        dtype: Type in which the products are taken.
        bias: Whether the head has a bias.
        with_mean: Whether ``H̄ Ḡ`` is wanted.
        detached: ``H̄ Ḡ`` is a constant.

    Returns:
        ``G_e`` and ``H_e G_e``, ``(m, C, d+1)``, and ``H̄ Ḡ``, ``(C, d+1)``, or zeros.
    """
    values = [curvature.values for curvature in curvatures]
    config = (type(curvatures[0]), dtype, bias, with_mean, detached)
    found: tuple[Tensor, ...] = _HGPProducts.apply(config, *features, *residuals, *values, *shares)
    return found[0], found[1], found[2].detach() if detached else found[2]


def squared_distances(values: Tensor) -> tuple[Tensor, Tensor]:
    """``‖v_e − v̄‖²`` and ``‖v_e‖²`` of vectors ``(m, F)``, ``(m,)`` each."""
    found: tuple[Tensor, Tensor] = _SquaredDistances.apply(values)
    return found


def squared_distances_to(values: Tensor, centre: Tensor) -> Tensor:
    """``‖v_e − c‖²`` of vectors ``(m, F)`` to another one, ``(F,)``: ``(m,)``."""
    distances: Tensor = _SquaredDistancesTo.apply(values, centre)
    return distances


def squared_lengths(features: Tensor, bias: bool, dtype: torch.dtype, squares: bool = False) -> Tensor:
    """``‖z̃_i‖²``, or ``‖z̃_i²‖²``, for features ``(..., n, d)``: ``(..., n)``."""
    lengths: Tensor = _SquaredLengths.apply(features, dtype, squares)
    return lengths + 1 if bias else lengths


class _WeightedSum(torch.autograd.Function):
    """``Wᵀ Z̃``; with ``Ġ`` the derivatives are ``W Ġ`` for ``Z`` and ``Z̃ Ġᵀ`` for ``W``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor, weights: Tensor, bias: bool) -> Tensor:
        return _sum(features.to(weights.dtype), weights, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.save_for_forward(*inputs[:2])
        ctx.bias = inputs[2]

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        features, weights = ctx.saved_tensors
        slope = outputs[0].to(features.dtype)
        for_features = for_weights = None
        if ctx.needs_input_grad[0]:
            for_features = weights.to(features.dtype) @ slope[..., : features.shape[-1]]
        if ctx.needs_input_grad[1]:
            for_weights = _project(features, slope, ctx.bias).to(weights.dtype)
        return for_features, for_weights, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        features, weights = ctx.saved_tensors
        of_features, of_weights = tangents[:2]
        moved = torch.zeros_like(weights) if of_weights is None else of_weights
        tangent = _sum(features.to(weights.dtype), moved, ctx.bias)
        if of_features is None:
            return tangent
        turned = weights.mT @ of_features.to(weights.dtype)
        return tangent + (F.pad(turned, (0, 1)) if ctx.bias else turned)


class _SquaredDistances(torch.autograd.Function):
    """``‖v_e − v̄‖²`` and ``‖v_e‖²``; the long vectors are passed over once for the derivative.

    It is ``2 ((I − J) diag(ġ) (I − J) + diag(ṡ)) V`` with ``J = 1/m`` everywhere.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor) -> tuple[Tensor, Tensor]:
        return _squared_norms(values - values.mean(0)), _squared_norms(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        for_distances, for_squares = 2 * outputs[0], 2 * outputs[1]
        shared = for_distances / len(for_distances)
        mixed = torch.diag(for_distances + for_squares) - shared - (shared - shared.mean()).unsqueeze(1)
        slope: Tensor = mixed @ values
        return slope

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> tuple[Tensor, Tensor]:
        (values,), tangent = ctx.saved_tensors, tangents[0]
        # Differences on either side: a product of one of them with the values would cancel.
        apart = (values - values.mean(0)) * (tangent - tangent.mean(0))
        return 2 * apart.sum(1), 2 * (values * tangent).sum(1)


def _squared_norms(values: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(values, dim=1)
    return norms.square()


class _SquaredDistancesTo(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, centre: Tensor) -> Tensor:
        return _squared_norms(values - centre)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor | None]:
        values, centre = ctx.saved_tensors
        slope = (2 * outputs[0]).unsqueeze(1) * (values - centre)
        return slope, -slope.sum(0) if ctx.needs_input_grad[1] else None


class _SquaredLengths(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor, dtype: torch.dtype, squares: bool) -> Tensor:
        rows = features.to(dtype)
        lengths: Tensor = torch.linalg.vector_norm(rows.square() if squares else rows, dim=-1)
        return lengths.square()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, torch.dtype, bool], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.squares = inputs[2]

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        (features,) = ctx.saved_tensors
        slope = (2 * outputs[0]).to(features.dtype).unsqueeze(-1)
        if ctx.squares:
            return 2 * slope * features.square() * features, None, None
        return slope * features, None, None


class _Gram(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor, bias: bool, squares: bool) -> Tensor:
        products = _symmetric_product(features.square() if squares else features)
        return products + 1 if bias else products

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, bool, bool], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.squares = inputs[2]

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        (features,) = ctx.saved_tensors
        symmetric = outputs[0] + outputs[0].mT
        if not ctx.squares:
            return symmetric @ features, None, None
        return (symmetric @ features.square()) * (2 * features), None, None


class _TwoGrams(torch.autograd.Function):
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
        both_sided, one_sided = outputs
        return (both_sided + both_sided.mT + one_sided) @ features, None


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
            rows = _augmented(short.to(weights.dtype), bias)
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
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, Tensor, None]:
        features, weights = ctx.saved_tensors
        symmetric = (outputs[0] + outputs[0].mT).to(features.dtype)
        for_features, for_weights = [], []
        for short, group in _groups(features, weights.unsqueeze(-1)):
            rows = _augmented(short, ctx.bias)
            product = rows @ symmetric
            if ctx.needs_input_grad[0]:
                for_features.append(group.to(short.dtype) * product[..., : features.shape[-1]])
            for_weights.append(((rows * product).sum(-1) / 2).to(group.dtype))
        return _joined(for_features, -2) if for_features else None, _joined(for_weights, -1), None


class _HGPProducts(torch.autograd.Function):
    """Gradients ``G_e`` and products ``H_e [G_e, Ḡ]`` of domains, with few passes over their features.

    ``G_e = (a R)ᵀ Z̃_e``, ``U_e = Z̃_e [G_e, Ḡ]ᵀ``, ``S_e = a A_e U_e`` and ``P_e = S_eᵀ Z̃_e`` each give the
    features a derivative of low rank. Together they are one product, ``[S, U̇, a R] [Ṗ, [G, Ḡ], Ġ]``, where
    autograd would write and add three matrices of the features' size.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(config: tuple[Any, ...], *given: Tensor) -> tuple[Tensor, ...]:
        kind, dtype, bias, with_mean, _ = config
        features, residuals, values, shares = _quarters(given)
        blocks = [block.to(dtype) for block in features]
        gradients = torch.cat(
            [_sum(z, (r * a).to(dtype), bias) for z, r, a in zip(blocks, residuals, shares, strict=True)]
        )
        directions = _directions(gradients, features, with_mean)
        projected = [_project(z, v, bias) for z, v in zip(blocks, directions, strict=True)]
        products = torch.cat(
            [
                _sum(z, (_bend(kind(c), u) * a).to(dtype), bias)
                for z, c, u, a in zip(blocks, values, projected, shares, strict=True)
            ]
        )
        size = gradients.shape[1]
        if not with_mean:
            return gradients, products, torch.zeros_like(gradients[0]), *projected
        return gradients, products[:, :size].contiguous(), products[:, size:].mean(0), *projected

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.config, given = inputs[0], inputs[1:]
        ctx.shares = [None if isinstance(share, Tensor) else share for share in _quarters(given)[3]]
        ctx.save_for_backward(*[each for each in given if isinstance(each, Tensor)], output[0], *output[3:])

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        kind, _, bias, with_mean, detached = ctx.config
        count = len(ctx.shares)
        saved = list(ctx.saved_tensors)
        features, residuals, values = (saved[n * count : (n + 1) * count] for n in range(3))
        rest = saved[3 * count :]
        shares = [rest.pop(0) if share is None else share for share in ctx.shares]
        gradients, projected = rest[0], rest[1:]
        outputs_count = gradients.shape[1]
        # What is constant has no derivative: the vectors that count are the first ones.
        used = outputs_count if detached or not with_mean else 2 * outputs_count
        dtype = features[0].dtype
        slopes = outputs[1].to(dtype)
        if used > outputs_count:
            of_mean = (outputs[2].to(dtype) / len(slopes)).expand_as(slopes)
            slopes = torch.cat([slopes, of_mean], dim=1)
        directions = _directions(gradients, features, with_mean and not detached)
        ends = _ends(features)
        pairs, for_values, for_shares, for_directions = [], [], [], []
        for index, (z, c, a) in enumerate(zip(features, values, shares, strict=True)):
            curvature, u = kind(c), projected[index][..., :used]
            towards = _project(z, slopes[ends[index] : ends[index + 1]], bias).to(c.dtype)
            curved = _bend(curvature, u)
            bent = (_bend(curvature, towards) * a).to(dtype) + outputs[3 + index][..., :used].to(dtype)
            shape = (-1, used // outputs_count, outputs_count)
            for_values.append(curvature.pull_back(u.reshape(shape).to(c.dtype), (towards * a).reshape(shape)))
            for_shares.append((towards * curved).sum(-1, keepdim=True))
            for_directions.append(_sum(z, bent, bias))
            pairs.append(((curved * a).to(dtype), bent))
        directed = torch.cat(for_directions)
        for_gradients = outputs[0].to(dtype) + directed[:, :outputs_count]
        if used > outputs_count:
            for_gradients = for_gradients + directed[:, outputs_count:].mean(0)
        for_features: list[Tensor | None] = []
        for_residuals = []
        for index, (z, r, a) in enumerate(zip(features, residuals, shares, strict=True)):
            own = for_gradients[ends[index] : ends[index + 1]]
            if ctx.needs_input_grad[1 + index]:
                left = torch.cat([*pairs[index], (r * a).to(dtype)], dim=-1)
                right = [slopes[ends[index] : ends[index + 1]], directions[index].to(dtype), own]
                for_features.append(left @ torch.cat(right, dim=-2)[..., : z.shape[-1]])
            else:
                for_features.append(None)
            towards = _project(z, own, bias).to(r.dtype)
            for_residuals.append(towards * a)
            for_shares[index] = for_shares[index] + (towards * r).sum(-1, keepdim=True)
        shares_slopes = [
            slope if isinstance(share, Tensor) else None
            for slope, share in zip(for_shares, shares, strict=True)
        ]
        return None, *for_features, *for_residuals, *for_values, *shares_slopes


def _quarters(given: Sequence[Any]) -> list[Sequence[Any]]:
    count = len(given) // 4
    return [given[n * count : (n + 1) * count] for n in range(4)]


def _ends(features: Sequence[Tensor]) -> list[int]:
    """Where each block's domains begin among all, and where the last one's end."""
    return list(accumulate((len(block) for block in features), initial=0))


def _directions(gradients: Tensor, features: Sequence[Tensor], with_mean: bool) -> Sequence[Tensor]:
    """``G_e``, or ``[G_e, Ḡ]``, ``(b, 2 C, d+1)``, for each block."""
    if with_mean:
        gradients = torch.cat([gradients, gradients.mean(0).expand_as(gradients)], dim=1)
    found: Sequence[Tensor] = gradients.split([len(block) for block in features])
    return found


def _bend(curvature: Curvature, vectors: Tensor) -> Tensor:
    """Curvature of ``b n`` samples times vectors ``(b, n, k C)``."""
    outputs = curvature.values.shape[1]
    flat = vectors.to(curvature.values.dtype).reshape(-1, vectors.shape[-1] // outputs, outputs)
    return curvature.apply(flat).reshape(vectors.shape)


def _sum(features: Tensor, weights: Tensor, bias: bool) -> Tensor:
    """``Σ_i w_i z̃_iᵀ`` of one type."""
    sums = weights.mT @ features
    return torch.cat([sums, weights.sum(-2).unsqueeze(-1)], dim=-1) if bias else sums


def _project(features: Tensor, vectors: Tensor, bias: bool) -> Tensor:
    """``Z̃ Vᵀ`` for vectors ``(..., k, d+1)``, of one type."""
    if not bias:
        return features @ vectors.mT
    # A slice as it is would cost the backward pass over many samples twice the time (memory layout).
    weights, biases = vectors[..., :-1], vectors[..., -1]
    if features.shape[-2] > ROWS_IN_CACHE:
        weights = weights.contiguous()
    if features.ndim == 2:
        return torch.addmm(biases, features, weights.mT)
    return features @ weights.mT + biases.unsqueeze(-2)


class _WeightedSquares(torch.autograd.Function):
    """``Σ_i w_i z̃_i²`` for weights ``(..., n, k)``: ``(..., k, d+1)``, without a tensor of all squares.

    With ``P = W Ġ`` the derivatives are ``2 Z ⊙ P`` for ``Z`` and ``Z² Ġᵀ`` for ``W``. Rows are taken in
    groups that stay in the processor's cache.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor, weights: Tensor, bias: bool) -> Tensor:
        sums = reduce(
            torch.add,
            [group.mT @ rows.to(group.dtype).square() for rows, group in _groups(features, weights)],
        )
        return torch.cat([sums, weights.sum(-2).unsqueeze(-1)], dim=-1) if bias else sums

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.bias = inputs[2]

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        features, weights = ctx.saved_tensors
        slope = outputs[0].to(features.dtype)
        doubled = 2 * slope[..., : features.shape[-1]]
        for_features, for_weights = [], []
        for rows, group in _groups(features, weights):
            if ctx.needs_input_grad[0]:
                for_features.append((group.to(rows.dtype) @ doubled) * rows)
            if ctx.needs_input_grad[1]:
                for_weights.append(_project(rows.square(), slope, ctx.bias).to(group.dtype))
        return (
            _joined(for_features, -2) if for_features else None,
            _joined(for_weights, -2) if for_weights else None,
            None,
        )


def _groups(features: Tensor, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Groups of rows that fit a processor's cache, and their weights."""
    return list(zip(features.split(ROWS_IN_CACHE, -2), weights.split(ROWS_IN_CACHE, -2), strict=True))


def _joined(pieces: list[Tensor], dim: int) -> Tensor:
    """All groups' rows; one alone is not copied."""
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)


def _augmented(rows: Tensor, bias: bool) -> Tensor:
    """Rows with the constant feature appended, for a head with bias."""
    return F.pad(rows, (0, 1), value=1.0) if bias else rows
