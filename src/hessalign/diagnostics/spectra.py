r"""Leading eigenvalues of head Hessians and of their differences, by products with vectors only."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh  # type: ignore[import-untyped]
from torch import Tensor

from hessalign.head import HeadDerivatives

DENSE_SIZE = 64
"""Operators up to this size are formed and decomposed: Lanczos needs room beyond the wanted eigenvalues."""


def leading_eigenpairs(
    product: Callable[[Tensor], Tensor], like: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Eigenvalues of largest modulus of a symmetric operator, and their unit vectors.

    Args:
        product: ``V ↦ A V`` for tensors shaped like ``like`` after any leading axes.
        like: Gives shape, type and device of a vector.
        count: Wanted; fewer where the operator is smaller.

    Returns:
        ``(count,)`` in float64, largest modulus first, and ``(count, *like.shape)``.
    """
    size = like.numel()
    if size <= max(DENSE_SIZE, 2 * count):
        identity = torch.eye(size, dtype=like.dtype, device=like.device)
        matrix = product(identity.view(size, *like.shape)).reshape(size, size).double().cpu()
        values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    else:

        def multiply(vector: np.ndarray) -> np.ndarray:
            return product(torch.from_numpy(vector).to(like).view_as(like)).flatten().double().cpu().numpy()

        start = np.random.default_rng(0).standard_normal(size)
        if not multiply(start).any():  # ARPACK cannot start on the null operator
            return torch.zeros(count, dtype=torch.float64), _first_units(like, count)
        operator = LinearOperator((size, size), matvec=multiply, dtype=np.float64)
        # A residual of this size leaves an error of its square in the eigenvalues.
        tolerance = torch.finfo(like.dtype).eps ** 0.5
        found = eigsh(operator, k=count, which="LM", v0=start, tol=tolerance, maxiter=100 * count + 1000)
        values, vectors = torch.from_numpy(found[0]), torch.from_numpy(found[1])
    order = values.abs().argsort(descending=True)[:count]
    return values[order], vectors.T[order].to(like).view(-1, *like.shape)


def _first_units(like: Tensor, count: int) -> Tensor:
    return torch.eye(count, like.numel(), dtype=like.dtype, device=like.device).view(-1, *like.shape)


def domain_eigenvalues(domains: Sequence[HeadDerivatives], count: int) -> list[Tensor]:
    """The ``count`` leading eigenvalues of each domain's Hessian."""
    return [leading_eigenpairs(domain.hvp, domain.gradient(), count)[0] for domain in domains]


def bilinear_forms(domain: HeadDerivatives, vectors: Tensor) -> Tensor:
    """``v_jᵀ Φ_i v_l`` of each sample's Hessian ``Φ_i = A_i ⊗ z̃_i z̃_iᵀ``, ``(n, k, k)``, float64.

    Args:
        domain: ``n`` samples.
        vectors: ``(k, C, d+1)``.
    """
    projected = _projected(domain, vectors)
    return (projected @ domain.curvature.apply(projected).transpose(1, 2)).double()


def curved_squares(domain: HeadDerivatives, vector: Tensor) -> Tensor:
    """``‖Φ_i v‖²`` of each sample, ``(n,)``, float64."""
    curved = domain.curvature.apply(_projected(domain, vector.unsqueeze(0))).squeeze(1)
    return curved.double().square().sum(1) * (1 + domain.features.double().square().sum(1))


def _projected(domain: HeadDerivatives, vectors: Tensor) -> Tensor:
    """``V_j z̃_i``, ``(n, k, C)``."""
    flat = vectors.flatten(0, 1)
    projected = torch.addmm(flat[:, -1], domain.features, flat[:, :-1].T)
    return projected.view(len(domain), *vectors.shape[:2])
