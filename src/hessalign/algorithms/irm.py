"""Invariant risk minimisation (Arjovsky, Bottou, Gulrajani and Lopez-Paz, 2019)."""

import torch
from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.annealed import AnnealedHParams, AnnealedPenalty
from hessalign.algorithms.base import DomainBatch, head_derivatives, register
from hessalign.algorithms.hparams import LogUniform, hparam


class IRMHParams(AnnealedHParams):
    """Hyper-parameters of IRM.

    Attributes:
        penalty_weight: Weight of the penalty after annealing; 1 before.
        anneal_steps: Steps before the weight sets in.
    """

    penalty_weight: float = hparam(1e2, LogUniform(-1, 5), reference_name="irm_lambda")
    anneal_steps: int = hparam(500, LogUniform(0, 4, whole=True), reference_name="irm_penalty_anneal_iters")


@register("irm", reference_name="IRM")
class IRM(AnnealedPenalty):
    """``mean_e R_e + w mean_e g_e g′_e``.

    ``g_e`` and ``g′_e`` are the derivatives of the loss at ``s · logits`` with respect to ``s = 1`` over the
    samples of even and of odd index: an unbiased estimate of the squared derivative, which may be negative.
    In closed form each is the mean of ``r_i · a_i``, residual times logits.
    """

    hparams_class = IRMHParams
    hparams: IRMHParams
    needs_samples = 2

    @override
    def penalty(self, features: Tensor, logits: Tensor, risks: Tensor, batch: DomainBatch) -> Tensor:
        return irm_penalty(features, logits, batch)


def irm_penalty(features: Tensor, logits: Tensor, batch: DomainBatch) -> Tensor:
    """``mean_e g_e g′_e`` from features ``(E·B, width)`` and logits ``(E·B, C)``."""
    domains = zip(head_derivatives(features, logits, batch), batch.by_domain(logits), strict=True)
    by_domain = [slopes(domain.residual, own) for domain, own in domains]
    return torch.stack([slope[0::2].mean() * slope[1::2].mean() for slope in by_domain]).mean()


def slopes(residual: Tensor, logits: Tensor) -> Tensor:
    """Derivatives ``r_i · a_i`` of each sample's loss at ``s · logits`` with respect to ``s = 1``, ``(n,)``.

    Args:
        residual: ``r``, the derivative of each sample's loss in its logits, ``(n, C)``.
        logits: ``a``, ``(n, C)``.

    Returns:
        ``(n,)``.
    """
    return (residual * logits).sum(1)
