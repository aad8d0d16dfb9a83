"""Penalties whose weight sets in after some steps, with a fresh optimiser from then on."""

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, cross_entropies
from hessalign.algorithms.hparams import HParams
from hessalign.loop import WeightSchedule


class AnnealedHParams(HParams):
    """What every annealed penalty has; subclasses add defaults and search distributions.

    Attributes:
        penalty_weight: Weight of the penalty after annealing.
        anneal_steps: Steps before the weight sets in.
    """

    penalty_weight: float
    anneal_steps: int


class AnnealedPenalty(Algorithm):
    """``mean_e R_e + w_t · penalty``; Adam begins anew at the step where ``w_t`` changes."""

    hparams: AnnealedHParams
    penalty_weights = ("penalty_weight",)
    weight_before: ClassVar[float] = 1.0
    sets_in: ClassVar[tuple[tuple[str, str], ...]] = (("anneal_steps", "the penalty's full weight"),)
    batched: ClassVar[tuple[str, ...] | None] = ("penalty_weight", "anneal_steps")

    @abstractmethod
    def penalty(self, features: Tensor, logits: Tensor, risks: Tensor, batch: DomainBatch) -> Tensor:
        """The penalty of a batch, from features, logits and the domains' cross-entropies."""

    @override
    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        features = self.backbone(batch.inputs)
        logits = self.head(features)
        risks = cross_entropies(logits, batch)
        penalty = self.penalty(features, logits, risks, batch)
        return risks.mean() + self.weight(penalty) * penalty, {
            "risk": risks.mean().detach(),
            "penalty": penalty.detach(),
        }

    @override
    def resets_optimizer(self) -> bool | Tensor:
        return self.schedule().resets(self.steps_done)

    def weight(self, like: Tensor) -> float | Tensor:
        """``w_t`` of the step that is about to be done; a number, or of the type of a tensor.

        It is a tensor where the hyper-parameters are, those of runs that are trained together.

        Returns:
            A number, or a scalar tensor like the given one.
        """
        weight = self.schedule()(self.steps_done)
        return weight.to(like) if isinstance(weight, Tensor) else weight

    def schedule(self) -> WeightSchedule:
        """Waits, then jumps; made anew, for runs that are trained together change the hyper-parameters."""
        after, start = self.hparams.penalty_weight, self.hparams.anneal_steps
        return WeightSchedule(after, self.weight_before, start, reset_optimizer=True)
