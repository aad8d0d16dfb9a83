"""Two halves of a batch that hold the domains in different shares (Chevalley et al., 2022)."""

from abc import abstractmethod

import torch
from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, cross_entropies
from hessalign.algorithms.hparams import HParams, LogUniform, hparam
from hessalign.head.derivatives import at_least_single, precise_type, without_autocast


class CausIRLHParams(HParams):
    """Hyper-parameters of both CausIRL algorithms.

    Attributes:
        penalty_weight: Weight ``γ`` of the distance.
    """

    penalty_weight: float = hparam(1.0, LogUniform(-1, 1), reference_name="mmd_gamma")


class CausIRL(Algorithm):
    """``mean_e R_e + γ · distance of two halves``.

    Each domain's samples are cut at a random place, ``s ~ U{0, ..., B − 1}``: its first ``s`` samples go to
    the first half, the others to the second. So the halves differ in their shares of the domains, which
    features without a trace of the domain do not show. Where a half has fewer than 2 samples, and with one
    source domain, the distance is 0.

    Distances are differences of nearly equal numbers, so they are computed in float64, where the device has
    it. As in DomainBed each domain passes through the backbone by itself where a BatchNorm is trained.
    """

    hparams_class = CausIRLHParams
    hparams: CausIRLHParams
    needs_domains = 2
    needs_samples = 2
    needs_trainable_backbone = True
    penalty_weights = ("penalty_weight",)

    @abstractmethod
    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """Distance of two sets of features, ``(n, width)`` and ``(m, width)``, at least 2 each."""

    @override
    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        features = self.domain_features(batch)
        risk = cross_entropies(self.head(features), batch).mean()
        penalty = self.penalty(features, batch)
        return risk + self.hparams.penalty_weight * penalty, {
            "risk": risk.detach(),
            "penalty": penalty.detach(),
        }

    def penalty(self, features: Tensor, batch: DomainBatch) -> Tensor:
        """Distance of two halves cut at random, from features ``(E·B, width)``."""
        domains = batch.by_domain(features)
        # On the processor: where to cut must be known there.
        cuts = torch.randint(batch.samples_per_domain, (len(domains),)).tolist()
        halves = [
            torch.cat([domain[:cut] for domain, cut in zip(domains, cuts, strict=True)]),
            torch.cat([domain[cut:] for domain, cut in zip(domains, cuts, strict=True)]),
        ]
        if len(domains) == 1 or min(map(len, halves)) < 2:
            return at_least_single(features).new_zeros(())
        with without_autocast(features.device):
            first, second = (half.to(precise_type(half)) for half in halves)
            return self.distance(first, second).to(at_least_single(features).dtype)
