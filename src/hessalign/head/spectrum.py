r"""Distances between two head Hessians, among them the spectral one, matrix-free."""

import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from hessalign.head.derivatives import HeadDerivatives, hessian_inner_products

MAX_LANCZOS_STEPS = 300


def hessian_distance(
    d1: HeadDerivatives, d2: HeadDerivatives, norm: Literal["frobenius", "spectral"] = "frobenius"
) -> Tensor:
    """``‖H_1 − H_2‖`` between the head Hessians of two domains, without forming either.

    Frobenius: ``√(⟨H_1,H_1⟩ − 2⟨H_1,H_2⟩ + ⟨H_2,H_2⟩)``; equal Hessians give 0 with zero derivatives. As a
    difference of large numbers it resolves distances above about ``√ε ‖H‖`` (ε the type's precision):
    pass float64 to compare Hessians that nearly agree.
    Spectral: the largest ``|eigenvalue|`` of ``H_1 − H_2`` by Lanczos on Hessian-vector products; it bounds
    the transfer measure between the domains in the paper.

    Args:
        d1: Derivatives in one domain.
        d2: Derivatives in another, with the same numbers of features and outputs.
        norm: ``"frobenius"`` (default) or ``"spectral"``.

    Returns:
        Scalar, differentiable with respect to the features and logits of both.

    Raises:
        ValueError: If the norm is unknown or the shapes differ.
    """
    if norm == "frobenius":
        products = hessian_inner_products([d1, d2])
        return _root(products[0, 0] + products[1, 1] - 2 * products[0, 1])
    if norm == "spectral":
        return spectral_norm(lambda v: d1.hvp(v) - d2.hvp(v), like=d1.gradient())
    raise ValueError(f"norm: {norm!r} is not known; allowed are 'frobenius' and 'spectral'")


def spectral_norm(product: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Largest ``|eigenvalue|`` of a symmetric operator.

    The eigenvector ``v`` is found without recording gradients; the result is ``|vᵀ (A v)|``, whose
    derivative is that of the eigenvalue because ``v`` is stationary (Hellmann–Feynman).

    Args:
        product: ``v ↦ A v`` for tensors shaped like ``like``.
        like: Gives shape, type and device of the vectors.

    Returns:
        Scalar, differentiable through ``product``.
    """
    with torch.no_grad():
        vector = _dominant_eigenvector(lambda v: product(v.view_as(like)).flatten(), like.flatten())
    return (vector * product(vector.view_as(like)).flatten()).sum().abs()


def _dominant_eigenvector(product: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Unit eigenvector of the largest ``|eigenvalue|``: Lanczos with full re-orthogonalisation."""
    precision = torch.finfo(like.dtype).eps
    tolerance = precision ** (2 / 3)
    start = torch.randn(like.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vector = start.to(like)
    vector = vector / vector.norm()
    basis = vector.unsqueeze(0)
    diagonal: list[Tensor] = []
    off_diagonal: list[Tensor] = []
    steps = min(len(like), MAX_LANCZOS_STEPS)
    for step in range(1, steps + 1):
        image = product(basis[-1])
        diagonal.append(image @ basis[-1])
        for _ in range(2):  # twice is enough to stay orthogonal to rounding
            image = image - (basis @ image) @ basis
        remainder = image.norm()
        values, vectors = torch.linalg.eigh(_tridiagonal(diagonal, off_diagonal))
        best = values.abs().argmax()
        scale, residual = values[best].abs(), remainder * vectors[-1, best].abs()
        if residual <= tolerance * scale or remainder <= precision * scale or step == steps:
            break
        off_diagonal.append(remainder)
        basis = torch.cat([basis, (image / remainder).unsqueeze(0)])
    if step == MAX_LANCZOS_STEPS and residual > tolerance * scale:
        warnings.warn(
            f"the spectral norm did not converge in {MAX_LANCZOS_STEPS} Lanczos steps: "
            f"its relative error may reach {float(residual / scale):.1e}",
            RuntimeWarning,
            stacklevel=2,
        )
    found = vectors[:, best] @ basis
    unit: Tensor = found / found.norm()
    return unit


def _tridiagonal(diagonal: list[Tensor], off_diagonal: list[Tensor]) -> Tensor:
    matrix = torch.diag(torch.stack(diagonal))
    if off_diagonal:
        band = torch.stack(off_diagonal)
        matrix = matrix + torch.diag(band, 1) + torch.diag(band, -1)
    return matrix


def _root(square: Tensor) -> Tensor:
    """Square root with derivative 0 where rounding leaves nothing, instead of infinity."""
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, torch.ones_like(square)).sqrt(), 0 * square)
