r"""A flat head: the size of the domains' head Hessians, whole or off the diagonal, as a penalty.

``‖H_e‖_F²`` is the sum of the squared eigenvalues of domain ``e``'s Hessian. Where it is small, no small
change of the head's weights changes the domain's loss by more than its slope says: the head lies in a
flat region. It aligns nothing, but two Hessians that are both nearly zero are nearly equal. Hutchinson's
probes add the off-diagonal part of it to the alignment of diagonals without naming it (see
[expected_hutchinson_distances][]):

    expected Hutchinson  =  (1 + 1/k) · diagonal  −  (1/k) · Frobenius  +  (2/k) · Σ_e off(H_e)

summed over domains, ``diagonal`` and ``Frobenius`` being the distances of these names and
``off(H) = ‖H‖_F² − ‖diag H‖²``. With the centre detached, as in the DomainBed convention, the derivative is
that of ``diagonal + (1/k) Σ_e off(H_e)``.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hessalign.alignment.domains import derivatives_by_domain
from hessalign.checks import require_choice
from hessalign.head import (
    HeadDerivatives,
    HeadLoss,
    hessian_inner_products,
    hessian_inner_products_and_diagonals,
)
from hessalign.head.losses import resolve_loss
from hessalign.head.precision import without_autocast

Part = Literal["whole", "off_diagonal"]
Reduction = Literal["mean", "sum"]


def hessian_squares(domains: Sequence[HeadDerivatives], part: Part = "whole") -> Tensor:
    """``‖H_e‖_F²`` of each domain, or ``off(H_e) = ‖H_e‖_F² − ‖diag H_e‖²``; no Hessian is formed.

    Args:
        domains: Derivatives of ``m`` domains.
        part: ``"whole"`` (default) or ``"off_diagonal"``.

    Returns:
        ``(m,)``; rounding is kept from making it negative.
    """
    measure = _square if part == "whole" else _off_diagonal_square
    return torch.stack([measure(domain) for domain in domains]).clamp(min=0)


class HessianFlatness(nn.Module):
    r"""Penalty ``γ Σ_e ‖H_e‖_F²``, summed or averaged over domains, or of the off-diagonal elements alone.

    ``H_e`` is the Hessian of domain ``e``'s mean loss with respect to the linear head, in closed form.
    Add the penalty to a loss beside [HessianAlignment][hessalign.HessianAlignment], or alone. Small
    features and confident predictions both make a head flat, so it competes with the fit: γ decides how
    far. With one domain it is still the size of that domain's Hessian.

    Args:
        gamma: Weight, default 1e-3; 0 switches the penalty off.
        part: ``"whole"`` (default), ``‖H_e‖_F²``, or ``"off_diagonal"``, ``‖H_e‖_F² − ‖diag H_e‖²``: the
            regulariser that ``k`` Hutchinson probes imply, with weight ``1/k`` of theirs (``2/k`` where the
            centre is not detached).
        reduction: ``"mean"`` (default) or ``"sum"`` over domains.
        loss: Loss of the head, as
            [HeadDerivatives.from_logits][hessalign.HeadDerivatives.from_logits] takes it.

    Raises:
        ValueError: If an argument is unknown or out of range.

    Example:
        >>> import torch
        >>> from hessalign import HessianFlatness
        >>> head = torch.nn.Linear(16, 4)
        >>> features, targets = torch.randn(30, 16), torch.randint(0, 4, (30,))
        >>> flatness = HessianFlatness(gamma=1e-2, part="off_diagonal")
        >>> logits = head(features)
        >>> loss = torch.nn.functional.cross_entropy(logits, targets)
        >>> loss = loss + flatness(features, logits, targets, domains=torch.arange(30) % 3)
        >>> loss.backward()
    """

    def __init__(
        self,
        gamma: float = 1e-3,
        part: Part = "whole",
        *,
        reduction: Reduction = "mean",
        loss: str | HeadLoss = "cross_entropy",
    ) -> None:
        super().__init__()
        if not (math.isfinite(gamma) and gamma >= 0):
            raise ValueError(f"gamma: must be a finite number of at least 0, got {gamma!r}")
        require_choice("part", part, get_args(Part))
        require_choice("reduction", reduction, get_args(Reduction))
        self.gamma = gamma
        self.part: Part = part
        self.reduction: Reduction = reduction
        self.loss = resolve_loss(loss)

    def forward(self, features: Tensor, logits: Tensor, targets: Tensor, domains: Tensor) -> Tensor:
        """The penalty of a batch.

        Args:
            features: Input of the linear head, ``(n, d)``.
            logits: Output of the linear head, ``(n, C)``; ``(n,)`` for one logit.
            targets: As the loss takes them, ``(n,)`` or ``(n, C)``.
            domains: Integer domain id of each sample, ``(n,)``, in any order.

        Returns:
            Scalar, differentiable with respect to features and logits; in float32 at least.

        Raises:
            ValueError: If lengths or shapes do not match, a value is NaN or infinite, or a target is out of
                range.
        """
        # Mixed precision would round small Hessians away.
        with without_autocast(features.device):
            return self.from_derivatives(derivatives_by_domain(features, logits, targets, domains, self.loss))

    def from_derivatives(self, domains: Sequence[HeadDerivatives]) -> Tensor:
        """The penalty of domains whose head derivatives are at hand.

        Args:
            domains: Derivatives of each domain, at least one.

        Returns:
            Scalar.

        Raises:
            ValueError: If there is no domain.
        """
        if not domains:
            raise ValueError("domains: at least 1 is needed, got none")
        squares = hessian_squares(domains, self.part)
        return self.gamma * (squares.mean() if self.reduction == "mean" else squares.sum())

    def extra_repr(self) -> str:
        """Settings, as ``print(penalty)`` shows them."""
        return f"gamma={self.gamma}, part={self.part!r}, reduction={self.reduction!r}, loss={self.loss}"


def _square(domain: HeadDerivatives) -> Tensor:
    return hessian_inner_products([domain])[0, 0]


def _off_diagonal_square(domain: HeadDerivatives) -> Tensor:
    products, diagonals = hessian_inner_products_and_diagonals([domain])
    return products[0, 0] - diagonals.square().sum()
