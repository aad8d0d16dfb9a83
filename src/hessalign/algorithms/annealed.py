"""Penalties whose weight sets in after some steps, with a fresh optimiser from then on."""

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, Optimizers, cross_entropies, reset
from hessalign.algorithms.hparams import HParams


class AnnealedHParams(HParams):
    """What every annealed penalty has; subclasses add defaults and search distributions.

    Attributes:
        penalty_weight: Weight of the penalty after annealing.
        anneal_steps: Steps before the weight sets in.
    """

    penalty_weight: float
    anneal_steps: int


class AnnealedPenalty(Algorithm):
    """``mean_e R_e + w_t · penalty``; Adam forgets its moments at the step where ``w_t`` changes."""

    hparams: AnnealedHParams
    weight_before: ClassVar[float] = 1.0

    @abstractmethod
    def penalty(self, features: Tensor, logits: Tensor, risks: Tensor, batch: DomainBatch) -> Tensor:
        """The penalty of a batch, from features, logits and the domains' cross-entropies."""

    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        """See the class."""
        features = self.backbone(batch.inputs)
        logits = self.head(features)
        risks = cross_entropies(logits, batch)
        penalty = self.penalty(features, logits, risks, batch)
        return risks.mean() + self.weight() * penalty, {
            "risk": risks.mean().detach(),
            "penalty": penalty.detach(),
        }

    def step(self, batch: DomainBatch, optimizers: Optimizers) -> Metrics:
        """One update of the optimiser, fresh where the weight changes."""
        if 0 < self.hparams.anneal_steps == int(self.steps_done):
            reset(optimizers["main"])
        return super().step(batch, optimizers)

    def weight(self) -> float:
        """``w_t`` of the step that is about to be done."""
        annealed = int(self.steps_done) >= self.hparams.anneal_steps
        return self.hparams.penalty_weight if annealed else self.weight_before
