r"""A flat head: the size of the domains' head Hessians, whole or off the diagonal, as a penalty.

``‖H_e‖_F²`` is the sum of the squared eigenvalues of domain ``e``'s Hessian. Where it is small, no small
change of the head's weights changes the domain's loss by more than its slope says: the head lies in a
flat region. It aligns nothing, but two Hessians that are both nearly zero are nearly equal. Hutchinson's
probes add the off-diagonal terms of it to the alignment of diagonals without naming it (see
[expected_hutchinson_distances][hessalign.alignment.expected_hutchinson_distances]):

    expected Hutchinson  =  (1 + 1/k) · diagonal  −  (1/k) · Frobenius  +  (2/k) · Σ_e off(H_e)

summed over domains, ``diagonal`` and ``Frobenius`` being the distances of these names and
``off(H) = ‖H‖_F² − ‖diag H‖²``. With the centre detached, as in the DomainBed convention, the derivative is
that of ``diagonal + (1/k) Σ_e off(H_e)``.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, get_args

import torch

from hessalign.alignment.penalty import HeadPenalty, Reduction, Terms, Weight, hessian_squares
from hessalign.checks import require_choice
from hessalign.head import HeadDerivatives, HeadLoss

Part = Literal["whole", "off_diagonal"]


class HessianFlatness(HeadPenalty):
    r"""Penalty ``γ Σ_e ‖H_e‖_F²``, summed or averaged over domains, or of the off-diagonal elements alone.

    ``H_e`` is the Hessian of domain ``e``'s mean loss with respect to the linear head, in closed form.
    Add the penalty to a loss beside [HessianAlignment][hessalign.HessianAlignment], or alone. Small
    features and confident predictions both make a head flat, so it competes with the fit: γ decides how
    far. With one domain it is still the size of that domain's Hessian.

    Args:
        gamma: Weight, a number or a scalar tensor, default 1e-3; 0 switches the penalty off.
        part: ``"whole"`` (default), ``‖H_e‖_F²``, or ``"off_diagonal"``, ``‖H_e‖_F² − ‖diag H_e‖²``: the
            regulariser that ``k`` Hutchinson probes imply, with weight ``1/k`` of theirs (``2/k`` where the
            centre is not detached).
        bias: Whether the head has a bias, default True.
        reduction: ``"mean"`` (default) or ``"sum"`` over domains.
        loss: Loss of the head, as
            [HeadDerivatives.from_logits][hessalign.head.HeadDerivatives.from_logits] takes it.

    Raises:
        ValueError: If an argument is unknown or out of range.

    Examples:
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

    weights: ClassVar[Mapping[str, str]] = {"hessian_size": "gamma"}

    def __init__(
        self,
        gamma: Weight = 1e-3,
        part: Part = "whole",
        *,
        bias: bool = True,
        reduction: Reduction = "mean",
        loss: str | HeadLoss = "cross_entropy",
    ) -> None:
        super().__init__()
        require_choice("part", part, get_args(Part))
        self.gamma: Weight = gamma
        self.part: Part = part
        self.bias = bias
        self.reduction = reduction
        self.loss = loss  # type: ignore[assignment]

    def distances(
        self, domains: Sequence[HeadDerivatives], generator: torch.Generator | None = None
    ) -> Terms:
        """The Hessians' squared sizes, ``(m,)``, by the name ``"hessian_size"``.

        Args:
            domains: Derivatives of each domain.
            generator: Not used: nothing is drawn.

        Returns:
            ``{"hessian_size": (m,)}``.
        """
        return {"hessian_size": hessian_squares(domains, self.part)}

    def extra_repr(self) -> str:
        """Arguments, as ``print(penalty)`` shows them."""
        return (
            f"gamma={self.gamma}, part={self.part!r}, reduction={self.reduction!r}, bias={self.bias}, "
            f"loss={self.loss}"
        )
