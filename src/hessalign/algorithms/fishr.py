"""Fishr (Rame, Dancette and Cord, ICML 2022)."""

import torch
from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.annealed import AnnealedHParams, AnnealedPenalty
from hessalign.algorithms.base import DomainBatch, head_derivatives, register
from hessalign.algorithms.hparams import LogUniform, Uniform, hparam


class FishrHParams(AnnealedHParams):
    """Hyper-parameters of Fishr.

    Attributes:
        penalty_weight: Weight of the penalty after annealing; 0 before.
        anneal_steps: Steps before the weight sets in.
        ema: Share of the past in the moving average of the variances.
    """

    penalty_weight: float = hparam(1000.0, LogUniform(1, 4), reference_name="lambda")
    anneal_steps: int = hparam(1500, Uniform(0, 5000, whole=True), reference_name="penalty_anneal_iters")
    ema: float = hparam(0.95, Uniform(0.90, 0.99), at_most=0.999999)


@register("fishr", reference_name="Fishr")
class Fishr(AnnealedPenalty):
    """``mean_e R_e + w (1/E) Σ_e mean (v̂_e − mean_e v̂_e)²``, the inner mean over all elements of the head.

    ``v_e`` is the variance over samples of each element of the head's gradient; ``m ← γ sg(m) + (1 − γ) v_e``
    its moving average, and ``v̂_e = m / (1 − γ)`` keeps the derivative's scale free of ``γ``.
    """

    hparams_class = FishrHParams
    hparams: FishrHParams
    weight_before = 0.0
    needs_domains = 2
    needs_samples = 2
    averages: Tensor
    batched = ("penalty_weight", "anneal_steps", "ema")

    @override
    def build(self) -> None:
        self.register_buffer("averages", torch.zeros(self.domains, self.classes, self.width + 1))

    @override
    def penalty(self, features: Tensor, logits: Tensor, risks: Tensor, batch: DomainBatch) -> Tensor:
        domains = head_derivatives(features, logits, batch)
        variances = torch.stack([domain.gradient_variance() for domain in domains])
        averages = self.hparams.ema * self.averages + (1 - self.hparams.ema) * variances
        self.averages = averages.detach()
        corrected = averages / (1 - self.hparams.ema)
        return squared_deviations(corrected).mean()


def squared_deviations(values: Tensor) -> Tensor:
    """``(v_e − mean_e v_e)²`` of each domain, element by element.

    Args:
        values: ``v_e``, ``(E, ...)``: variances of gradients, or risks.

    Returns:
        Of the same shape.
    """
    return (values - values.mean(0)).square()
