"""Penalties that compare the features of every two domains."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, cross_entropies
from hessalign.algorithms.hparams import HParams, LogUniform, hparam
from hessalign.head.derivatives import at_least_single, precise_type, without_autocast


class PairwiseHParams(HParams):
    """Hyper-parameters of CORAL and MMD.

    Attributes:
        penalty_weight: Weight of the penalty.
    """

    penalty_weight: float = hparam(1.0, LogUniform(-1, 1), reference_name="mmd_gamma")


class PairwisePenalty(Algorithm):
    """``mean_e R_e + γ · mean over unordered pairs of domains of their distance``; 0 with one domain.

    Distances are differences of nearly equal numbers, so they are computed in float64, where the device has
    it. As in DomainBed each domain passes through the backbone by itself where a BatchNorm is trained.
    """

    hparams_class = PairwiseHParams
    hparams: PairwiseHParams
    needs_domains = 2
    compares_features = True
    penalty_weights = ("penalty_weight",)
    batched: ClassVar[tuple[str, ...] | None] = ("penalty_weight",)

    @abstractmethod
    def distances(self, features: Tensor) -> Tensor:
        """Distances of every two domains, ``(E, E)``, from their features, ``(E, B, width)``."""

    def penalty(self, domains: Sequence[Tensor]) -> Tensor:
        """Mean distance of every two domains; 0 with one domain.

        Args:
            domains: Features of each domain, ``(B, width)``.

        Returns:
            Scalar, in float32 at least.
        """
        count = len(domains)
        if count == 1:
            return domains[0].new_zeros(())
        with without_autocast(domains[0].device):
            features = at_least_single(torch.stack(list(domains)))
            distances = self.distances(features.to(precise_type(features)))
        mean = distances.triu(1).sum() / (count * (count - 1) / 2)
        return mean.to(features.dtype)

    @override
    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        features = self.domain_features(batch)
        risk = cross_entropies(self.head(features), batch).mean()
        penalty = self.penalty(batch.by_domain(features))
        return risk + self.hparams.penalty_weight * penalty, {
            "risk": risk.detach(),
            "penalty": penalty.detach(),
        }


def means_of_domains(values: Tensor, domains: int) -> Tensor:
    """Means over the samples of two domains, ``(E, E)``, of values for every two samples, ``(E·B, E·B)``."""
    blocks: Tensor = values.unflatten(1, (domains, -1)).unflatten(0, (domains, -1))
    return blocks.mean((1, 3))


def squared_distances(products: Tensor) -> Tensor:
    """``k_ee + k_ff − 2 k_ef``: squared distances, ``(E, E)``, from inner products."""
    own = products.diagonal()
    return own.unsqueeze(1) + own - 2 * products
