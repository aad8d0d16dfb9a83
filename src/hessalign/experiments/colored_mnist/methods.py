r"""Penalties of the methods over the source domains, and what the head penalties are made of.

Every method minimises ``mean loss + 0.0011 Σ‖w‖² + λ · penalty`` (see ``restart``).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from hessalign.algorithms.fishr import squared_deviations
from hessalign.algorithms.irm import slopes
from hessalign.alignment import HessianAlignment, HessianFlatness
from hessalign.experiments.colored_mnist.config import METHODS, RestartSpec
from hessalign.head import HeadDerivatives

FOLLOWING_THE_EXPECTATION = ("expected", "expected-sampled-steps")
"""Variants of Hutchinson whose gradient is that of the expectation, whatever sizes the steps."""


@dataclass(frozen=True, eq=False)
class DomainOutput:
    """What a network makes of one source domain.

    Attributes:
        features: Input of the head, ``(n, d)``.
        logits: ``(n,)``.
        labels: 0 or 1, ``(n,)``.
        loss: Mean binary cross-entropy, scalar.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor
    loss: Tensor

    def accuracy(self) -> float:
        """In percent."""
        return 100 * float(self._right().mean())

    def class_accuracies(self) -> tuple[float, float]:
        """In percent, of the images with label 0 and with label 1; NaN for a label that none has."""
        ones, right = self.labels > 0.5, self._right()
        return 100 * float(right[~ones].mean()), 100 * float(right[ones].mean())

    def _right(self) -> Tensor:
        return ((self.logits > 0) == (self.labels > 0.5)).double()

    def derivatives(self) -> HeadDerivatives:
        """Closed-form derivatives of the loss with respect to the head."""
        return HeadDerivatives.from_logits(self.features, self.logits, self.labels, "binary_cross_entropy")


Penalty = Callable[[Sequence[DomainOutput]], Tensor]


def irm(outputs: Sequence[DomainOutput]) -> Tensor:
    """Mean over domains of ``(∂/∂s loss at s·logits, s = 1)²``, the derivative being the mean of ``r_i a_i``.

    Arjovsky et al., "Invariant Risk Minimization", 2019.

    Returns:
        Scalar.
    """
    means = []
    for output in outputs:
        residual = output.logits.sigmoid() - output.labels
        means.append(slopes(residual.unsqueeze(1), output.logits.unsqueeze(1)).mean())
    return torch.stack(means).square().mean()


def vrex(outputs: Sequence[DomainOutput]) -> Tensor:
    """``Σ_e (R_e − R̄)²`` times 2: for two domains, the squared difference of their losses.

    Krueger et al., "Out-of-Distribution Generalization via Risk Extrapolation", ICML 2021.

    Returns:
        Scalar.
    """
    return 2 * squared_deviations(torch.stack([output.loss for output in outputs])).sum()


def fishr(outputs: Sequence[DomainOutput]) -> Tensor:
    """``Σ_e ‖v_e − v̄‖²``, ``v_e`` the variance over samples of each element of the head's gradient.

    Rame et al., "Fishr: Invariant Gradient Variances for Out-of-Distribution Generalization", ICML 2022.

    Returns:
        Scalar.
    """
    variances = torch.stack([output.derivatives().gradient_variance() for output in outputs])
    return squared_deviations(variances).sum()


WITHOUT_HESSIANS: dict[str, Penalty] = {"irm": irm, "vrex": vrex, "fishr": fishr}


def make_penalty(spec: RestartSpec, generator: torch.Generator) -> Penalty | None:
    """The penalty that a restart follows; None for ERM.

    Head alignment is that of the Colored MNIST script: summed over domains, centre not detached.

    Args:
        spec: Gives the method, the weights of its distances and of its flatness, and the probes.
        generator: Source of the probes.

    Returns:
        What takes the outputs of the source domains and gives a scalar; None for ERM.

    Raises:
        ValueError: If the method has a flatness penalty and the spec no weight for it.

    Examples:
        >>> import torch
        >>> from hessalign.experiments.colored_mnist import RestartSpec, make_penalty
        >>> generator = torch.Generator().manual_seed(0)
        >>> make_penalty(RestartSpec(method="erm", seed=0), generator) is None
        True
        >>> callable(make_penalty(RestartSpec(method="hgp", seed=0), generator))
        True
    """
    method = METHODS[spec.method]
    if method.alignment is None:
        return WITHOUT_HESSIANS.get(spec.method)
    penalty = HessianAlignment(
        method.alignment,
        spec.alpha if method.uses_alpha else 0.0,
        1.0 if method.gradients else 0.0,
        probes=spec.probes,
        expected=spec.probes is not None and spec.hutchinson in FOLLOWING_THE_EXPECTATION,
        detach_centre=False,
        reduction="sum",
        loss="binary_cross_entropy",
    )
    if method.flat is None:
        return lambda outputs: penalty.from_derivatives(_derivatives(outputs), generator)
    if spec.gamma is None:
        raise ValueError(f"gamma: {spec.method!r} needs the weight of its flatness penalty, got None")
    flatness = HessianFlatness(spec.gamma, method.flat, reduction="sum", loss="binary_cross_entropy")

    def both(outputs: Sequence[DomainOutput]) -> Tensor:
        domains = _derivatives(outputs)
        return penalty.from_derivatives(domains, generator) + flatness.from_derivatives(domains)

    return both


def _derivatives(outputs: Sequence[DomainOutput]) -> list[HeadDerivatives]:
    return [output.derivatives() for output in outputs]


class PenaltyTerms(BaseModel):
    """Terms of the head penalties over ``m`` source domains, and accuracy on held-out images of these.

    Whichever of them a method minimises: for explanations, and for choosing without the target domain.

    Attributes:
        step: Counted from 0.
        gradient_distance: ``Σ_e ‖G_e − Ḡ‖²``.
        hgp_distance: ``Σ_e ‖H_e G_e − H̄ Ḡ‖²``.
        diagonal_distance: ``Σ_e ‖D_e − D̄‖²``.
        hessian_distance: ``Σ_e ‖H_e − H̄‖_F²``.
        hessian_square: ``‖H_e‖_F²``, mean over domains.
        off_diagonal: ``off(H_e) = ‖H_e‖_F² − ‖D_e‖²``, mean over domains.
        off_diagonal_of_mean: ``off(H̄)``.
        feature_square: Mean of ``‖z‖²`` over images, then domains: one way for a head to be flat.
        curvature: Mean of ``p (1 − p)``, likewise: confident predictions are the other way.
        source_losses: Mean cross-entropy of each source domain.
        held_out_accuracies: In percent, on source-domain images that were not trained on.
        held_out_images: Number of these in each domain.
        held_out_losses: Mean cross-entropy on them, by domain; empty in records from before it was measured.
        held_out_loss_errors: Standard error of each of these means.
        held_out_class_accuracies: In percent, by domain, of the images with label 0 and with label 1; empty
            in records from before it was measured.
        held_out_class_images: Number of these, likewise. Both tell how many of each label were predicted as
            either.

    Examples:
        >>> import torch
        >>> from hessalign.experiments.colored_mnist import RestartSpec, run_restart
        >>> spec = RestartSpec(method="erm", seed=0, steps=2, hidden=4, subsample=200)
        >>> record = run_restart(spec, torch.device("cpu"), log_terms=True)
        >>> terms = record.terms[0]
        >>> terms.step, len(terms.source_losses), terms.hessian_distance >= terms.diagonal_distance
        (0, 2, True)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    gradient_distance: float
    hgp_distance: float
    diagonal_distance: float
    hessian_distance: float
    hessian_square: float
    off_diagonal: float
    off_diagonal_of_mean: float
    feature_square: float
    curvature: float
    source_losses: tuple[float, ...]
    held_out_accuracies: tuple[float, ...]
    held_out_images: tuple[int, ...]
    held_out_losses: tuple[float, ...] = ()
    held_out_loss_errors: tuple[float, ...] = ()
    held_out_class_accuracies: tuple[tuple[float, float], ...] = ()
    held_out_class_images: tuple[tuple[int, int], ...] = ()


@torch.no_grad()
def measure_terms(
    step: int, outputs: Sequence[DomainOutput], held_out: Sequence[DomainOutput]
) -> PenaltyTerms:
    """Measure the terms.

    The Hessians are formed: they are small here, and inner products would lose the distance of two that
    nearly agree to rounding.

    Args:
        step: Counted from 0, to be noted.
        outputs: What the network makes of each source domain.
        held_out: The same for images of the source domains that were not trained on.

    Returns:
        The terms, as numbers.
    """
    domains = [output.derivatives() for output in outputs]
    hessians = torch.stack([domain.hessian() for domain in domains])
    gradients = torch.stack([domain.gradient().flatten() for domain in domains])
    diagonals = hessians.diagonal(dim1=1, dim2=2)
    products = torch.stack(
        [hessian @ gradient for hessian, gradient in zip(hessians, gradients, strict=True)]
    )
    mean_hessian, mean_gradient = hessians.mean(0), gradients.mean(0)
    return PenaltyTerms(
        step=step,
        gradient_distance=_square(gradients - mean_gradient),
        hgp_distance=_square(products - mean_hessian @ mean_gradient),
        diagonal_distance=_square(diagonals - diagonals.mean(0)),
        hessian_distance=_square(hessians - mean_hessian),
        hessian_square=_square(hessians) / len(domains),
        off_diagonal=(_square(hessians) - _square(diagonals)) / len(domains),
        off_diagonal_of_mean=_square(mean_hessian) - _square(mean_hessian.diagonal()),
        feature_square=fmean(float(domain.features.square().sum(1).mean()) for domain in domains),
        curvature=fmean(float(domain.curvature.diagonal().mean()) for domain in domains),
        source_losses=tuple(float(output.loss) for output in outputs),
        held_out_accuracies=tuple(output.accuracy() for output in held_out),
        held_out_images=tuple(len(output.labels) for output in held_out),
        held_out_losses=tuple(float(output.loss) for output in held_out),
        held_out_loss_errors=tuple(_standard_error(output) for output in held_out),
        held_out_class_accuracies=tuple(output.class_accuracies() for output in held_out),
        held_out_class_images=tuple(_class_images(output) for output in held_out),
    )


def _standard_error(output: DomainOutput) -> float:
    losses = F.binary_cross_entropy_with_logits(output.logits, output.labels, reduction="none")
    return float(losses.double().std()) / math.sqrt(len(losses))


def _class_images(output: DomainOutput) -> tuple[int, int]:
    ones = int((output.labels > 0.5).sum())
    return len(output.labels) - ones, ones


def _square(values: Tensor) -> float:
    return float(values.double().square().sum())
