"""Penalties that compare the features of every two domains."""

from abc import abstractmethod
from itertools import combinations

import torch
from torch import Tensor

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, cross_entropies
from hessalign.algorithms.hparams import HParams, LogUniform, hparam


class PairwiseHParams(HParams):
    """Hyper-parameters of CORAL and MMD.

    Attributes:
        penalty_weight: Weight of the penalty.
    """

    penalty_weight: float = hparam(1.0, LogUniform(-1, 1), reference_name="mmd_gamma")


class PairwisePenalty(Algorithm):
    """``mean_e R_e + γ · mean over unordered pairs of domains of their distance``; 0 with one domain."""

    hparams_class = PairwiseHParams
    hparams: PairwiseHParams

    @classmethod
    def batched_hparams(cls, hparams: HParams) -> tuple[str, ...] | None:
        """See the base class."""
        return ("penalty_weight",)

    @abstractmethod
    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """Distance between the features of two domains, each ``(B, width)``."""

    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        """See the class."""
        features = self.backbone(batch.inputs)
        risk = cross_entropies(self.head(features), batch).mean()
        pairs = combinations(batch.by_domain(features), 2)
        distances = [self.distance(first, second) for first, second in pairs]
        if not distances:
            return risk, {"risk": risk.detach(), "penalty": torch.zeros_like(risk)}
        penalty = torch.stack(distances).mean()
        return risk + self.hparams.penalty_weight * penalty, {
            "risk": risk.detach(),
            "penalty": penalty.detach(),
        }
