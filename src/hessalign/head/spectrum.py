r"""Distances between two head Hessians, and leading eigenvalues by products with vectors only."""

import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from hessalign.checks import require_choice
from hessalign.exceptions import UntrustworthyWarning
from hessalign.head.derivatives import DomainDerivatives, HeadDerivatives
from hessalign.head.statistics import Statistics

MAX_LANCZOS_STEPS = 300
NEAR = 1e-6
"""Share of their squares below which a squared distance of Hessians is taken from differences of blocks."""
DENSE_SIZE = 64
"""Operators up to this size are formed where several eigenvalues are wanted."""
# Vectors of a search that have room from the start; it doubles where it does not suffice.
FIRST_LANCZOS_STEPS = 64
TWICE = (
    "the spectral norm can be differentiated once only: its second derivative needs that of the eigenvector; "
    "use 'frobenius', which can be differentiated any number of times"
)


def hessian_distance(
    d1: HeadDerivatives, d2: HeadDerivatives, norm: Literal["frobenius", "spectral"] = "frobenius"
) -> Tensor:
    """``‖H_1 − H_2‖`` between the head Hessians of two domains, without forming either.

    Frobenius: see ``Statistics``; equal Hessians give 0 with zero derivatives.
    Spectral: the largest ``|eigenvalue|`` of ``H_1 − H_2`` by Lanczos on Hessian-vector products; it bounds
    the transfer measure between the domains in the paper.

    Args:
        d1: Derivatives in one domain.
        d2: Derivatives in another, with the same numbers of features and outputs.
        norm: ``"frobenius"`` (default) or ``"spectral"``.

    Returns:
        Scalar, differentiable with respect to the features and logits of both; with ``"spectral"`` once.

    Raises:
        ValueError: If the norm is unknown, the shapes differ, or features are so large that the distance
            is not finite.

    Examples:
        >>> import torch
        >>> import hessalign as ha
        >>> features, logits, targets = torch.randn(8, 4), torch.randn(8, 3), torch.arange(8) % 3
        >>> d1 = ha.HeadDerivatives.from_logits(features, logits, targets)
        >>> d2 = ha.HeadDerivatives.from_logits(features + 1.0, logits, targets)
        >>> whole = torch.linalg.matrix_norm(d1.hessian() - d2.hessian())
        >>> torch.isclose(ha.hessian_distance(d1, d2), whole, rtol=1e-4)
        tensor(True)
    """
    require_choice("norm", norm, ("frobenius", "spectral"))
    domains = DomainDerivatives.of([d1, d2])
    if norm == "frobenius":
        statistics = Statistics(domains, ["hessian"])
        spread = statistics.spread("hessian")
        if statistics.ways["hessian"] == "dual" and bool(
            spread.distances.detach().sum() < NEAR * spread.squares.detach().sum()
        ):
            # Sums over pairs of samples lose the digits in which nearly equal Hessians differ; blocks do not.
            spread = Statistics(domains, ["hessian"], ways={"hessian": "primal"}).spread("hessian")
        # ‖H_e − H̄‖² is a quarter of ‖H_1 − H_2‖² for each of two domains.
        square = 2 * spread.distances.sum()
        distance = _root(square).to(d1.features.dtype)
    else:
        first, second = d1.precise(), d2.precise()
        distance = spectral_norm(lambda v: first.hvp(v) - second.hvp(v), like=first.gradient())
        distance = distance.to(d1.features.dtype)
    if not bool(distance.detach().isfinite()):
        largest = max(float(domain.features.detach().abs().amax()) for domain in (d1, d2))
        raise ValueError(
            f"features: absolute values of up to {largest:.3g} are too large, the distance is not "
            f"finite in {d1.features.dtype}; divide them by their scale"
        )
    return distance


def spectral_norm(product: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Largest ``|eigenvalue|`` of a symmetric operator.

    The eigenvector ``v`` is found without recording gradients; the result is ``|vᵀ (A v)|``, whose
    derivative is that of the eigenvalue because ``v`` is stationary (Hellmann–Feynman). Its second derivative
    needs that of ``v``, which is not recorded; asking for it raises a RuntimeError.

    Args:
        product: ``v ↦ A v`` for tensors shaped like ``like``.
        like: Gives shape, type and device of the vectors.

    Returns:
        Scalar, differentiable through ``product``.

    Examples:
        >>> import torch
        >>> from hessalign.head import spectral_norm
        >>> matrix = torch.diag(torch.tensor([1.0, -3.0, 2.0]))
        >>> round(spectral_norm(lambda v: matrix @ v, torch.zeros(3)).item(), 4)
        3.0
    """
    with torch.no_grad():
        vector = leading_eigenpairs(product, like, 1)[1][0]
    value: Tensor = _FirstDerivative.apply((vector * product(vector)).sum().abs())
    return value


def leading_eigenpairs(
    product: Callable[[Tensor], Tensor], like: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Eigenvalues of largest modulus of a symmetric operator, and their unit vectors, by Lanczos.

    Every vector is made orthogonal to all before it. Where the space of the start vector is exhausted, as it
    is for repeated eigenvalues, the search goes on with another one.

    Args:
        product: ``v ↦ A v`` for tensors shaped like ``like``.
        like: Gives shape, type and device of a vector.
        count: Wanted; fewer where the operator is smaller.

    Returns:
        ``(count,)``, largest modulus first, and ``(count, *like.shape)``.

    Examples:
        >>> import torch
        >>> from hessalign.head import leading_eigenpairs
        >>> matrix = torch.diag(torch.tensor([1.0, -3.0, 2.0]))
        >>> values, vectors = leading_eigenpairs(lambda v: matrix @ v, torch.zeros(3), 2)
        >>> values
        tensor([-3.,  2.])
    """
    size = like.numel()
    count = min(count, size)
    if count > 1 and size <= DENSE_SIZE:
        units = torch.eye(size, dtype=like.dtype, device=like.device).view(size, *like.shape)
        matrix = torch.vmap(product)(units).reshape(size, size)
        values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
        order = values.abs().argsort(descending=True)[:count]
        return values[order], vectors.T[order].view(-1, *like.shape)
    precision = torch.finfo(like.dtype).eps
    tolerance = precision ** (2 / 3)
    generator = torch.Generator().manual_seed(0)
    held = like.new_empty(min(size, FIRST_LANCZOS_STEPS), size)
    held[0] = _unit(_random(like, generator))
    diagonal: list[Tensor] = []
    off_diagonal: list[Tensor] = []
    steps = min(size, MAX_LANCZOS_STEPS)
    scale = residual = like.new_zeros(())
    for step in range(1, steps + 1):
        basis = held[:step]
        image = product(basis[-1].view_as(like)).flatten()
        diagonal.append(image @ basis[-1])
        image = _orthogonal(image, basis)
        remainder = image.norm()
        values, vectors = torch.linalg.eigh(_tridiagonal(diagonal, off_diagonal))
        best = values.abs().argsort(descending=True)[:count]
        scale, residual = values[best[0]].abs(), (remainder * vectors[-1, best].abs()).max()
        exhausted = bool(remainder <= precision * scale)
        converged = step >= count and bool(residual <= tolerance * scale)
        # A space that is exhausted may hold each of several repeated eigenvalues once. A vector outside of it
        # shows whether there is more: the operator maps it to 0 where there is not.
        nothing_left = count == 1 or bool(diagonal[-1].abs() <= tolerance * scale)
        if step == steps or (converged and (nothing_left or not exhausted)):
            break
        if exhausted:
            remainder, image = torch.zeros_like(remainder), _orthogonal(_random(like, generator), basis)
        off_diagonal.append(remainder)
        if step == len(held):
            held = torch.cat([held, torch.empty_like(held)])[:steps]
        held[step] = _unit(image)
    if step == MAX_LANCZOS_STEPS < size and residual > tolerance * scale:
        warnings.warn(
            f"the spectral norm did not converge in {MAX_LANCZOS_STEPS} Lanczos steps: "
            f"its relative error may reach {float(residual / scale):.1e}",
            UntrustworthyWarning,
            stacklevel=2,
        )
    found = vectors[:, best].T @ basis
    return values[best], (found / found.norm(dim=1, keepdim=True)).view(-1, *like.shape)


class _FirstDerivative(torch.autograd.Function):
    """A value whose recorded graph gives its first derivative only, and only backwards.

    Forward mode has no rule here and is refused: it would differentiate the search for the eigenvector.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Bound to the value itself: what differentiates the gradient with respect to anything passes here.
        bound: Tensor = _NoDerivative.apply(gradient, *ctx.saved_tensors)
        return bound


class _NoDerivative(torch.autograd.Function):
    """A gradient that cannot be differentiated again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, value: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise RuntimeError(TWICE)


def _random(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.numel(), generator=generator, dtype=torch.float64).to(like)


def _unit(vector: Tensor) -> Tensor:
    unit: Tensor = vector / vector.norm()
    return unit


def _orthogonal(vector: Tensor, basis: Tensor) -> Tensor:
    for _ in range(2):  # twice is enough to stay orthogonal to rounding
        vector = vector - (basis @ vector) @ basis
    return vector


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
