r"""What the head penalties are made of at one step, whichever of it a method minimises.

For explanations, and for choosing among methods without the target domain.
"""

import math
from collections.abc import Sequence
from statistics import fmean

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from hessalign.experiments.colored_mnist.methods import DomainOutput


class PenaltyParts(BaseModel):
    """Parts of the head penalties over ``m`` source domains, and accuracy on held-out images of these.

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
def measure_parts(
    step: int, outputs: Sequence[DomainOutput], held_out: Sequence[DomainOutput]
) -> PenaltyParts:
    """Measure the parts.

    The Hessians are formed: they are small here, and inner products would lose the distance of two that
    nearly agree to rounding.

    Args:
        step: To be noted.
        outputs: Of the source domains.
        held_out: Outputs for held-out images of the source domains.
    """
    domains = [output.derivatives() for output in outputs]
    hessians = torch.stack([domain.hessian() for domain in domains])
    gradients = torch.stack([domain.gradient().flatten() for domain in domains])
    diagonals = hessians.diagonal(dim1=1, dim2=2)
    products = torch.stack(
        [hessian @ gradient for hessian, gradient in zip(hessians, gradients, strict=True)]
    )
    mean_hessian, mean_gradient = hessians.mean(0), gradients.mean(0)
    return PenaltyParts(
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
