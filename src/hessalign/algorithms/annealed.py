"""Penalties whose weight sets in after some steps, with a fresh optimiser from then on."""

from abc import abstractmethod

from torch import Tensor

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, Optimizers, cross_entropies, reset


class AnnealedPenalty(Algorithm):
    """``mean_e R_e + w_t · penalty``; Adam forgets its moments at the step where ``w_t`` changes."""

    @abstractmethod
    def penalty(self, features: Tensor, logits: Tensor, risks: Tensor, batch: DomainBatch) -> Tensor:
        """The penalty of a batch, from features, logits and the domains' cross-entropies."""

    @abstractmethod
    def weight(self) -> float:
        """``w_t`` of the step that is about to be done."""

    @abstractmethod
    def anneal_steps(self) -> int:
        """Number of steps before the weight changes."""

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
        if 0 < self.anneal_steps() == int(self.steps_done):
            reset(optimizers["main"])
        return super().step(batch, optimizers)

    def annealed(self) -> bool:
        """Whether the weight has changed already."""
        return int(self.steps_done) >= self.anneal_steps()
