"""Bottlenecks that keep a sample's neighbours from telling its domain (Ruan et al., ICLR 2022)."""

from abc import abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, cross_entropies
from hessalign.algorithms.hparams import Choice, HParams, hparam
from hessalign.head.derivatives import at_least_single, without_autocast

BASE_TEMPERATURE = 0.07
PROJECTION = 128


class BottleneckHParams(HParams):
    """Hyper-parameters of CAD and CondCAD.

    Attributes:
        penalty_weight: Weight ``λ`` of the bottleneck.
        temperature: Temperature ``τ`` of the similarities.
        normalize: Whether features are scaled to length 1 first.
        project: Whether a network of two layers maps them to 128 dimensions first.
        flipped: Whether neighbours from other domains are made likely, or those from one's own less so.
        variant: ``"paper"`` (default). ``"domainbed"``: what DomainBed adds to ``cad``. Samples without
            another one of their class are left out, and without ``flipped`` a sample counts as a neighbour
            of itself, at similarity 0.
    """

    penalty_weight: float = hparam(
        1e-1, Choice((1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)), reference_name="lmbda"
    )
    temperature: float = hparam(0.1, Choice((0.05, 0.1)), at_least=1e-6)
    normalize: bool = False
    project: bool = False
    flipped: bool = True
    variant: Literal["paper", "domainbed"] = "paper"


class ContrastiveBottleneck(Algorithm):
    """``mean_e R_e − λ (τ/0.07) mean_i log Σ_j∈other(i) p_ij``: neighbours do not tell the domain.

    ``p_i`` is the softmax of ``z_i·z_j/τ`` over ``j`` in ``N(i)``, a sample's neighbours in the batch, itself
    not among them; ``other(i)`` are those of other domains. Without ``flipped`` the logarithm is that of the
    sum over those of its own domain, and added. The mean is that over the samples with such neighbours.
    """

    hparams_class = BottleneckHParams
    hparams: BottleneckHParams
    batched = ("penalty_weight", "temperature")
    needs_domains = 2
    needs_trainable_backbone = True
    penalty_weights = ("penalty_weight",)

    @override
    def build(self) -> None:
        if self.hparams.project:
            self.projection = nn.Sequential(
                nn.Linear(self.width, self.width), nn.ReLU(), nn.Linear(self.width, PROJECTION)
            )

    @abstractmethod
    def neighbours(self, same_class: Tensor) -> Tensor:
        """Which samples are compared, ``(n, n)``, from which are of one class; oneself does not count."""

    def anchors(self, same_class: Tensor) -> Tensor:
        """Which samples count beyond those with the neighbours that it takes, ``(n,)``; all by default."""
        return torch.ones_like(same_class[0])

    @override
    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        features = self.backbone(batch.inputs)
        risk = cross_entropies(self.head(features), batch).mean()
        compared = self.projection(features) if self.hparams.project else features
        with without_autocast(features.device):
            penalty = self.bottleneck(at_least_single(compared), batch)
        return risk + self.hparams.penalty_weight * penalty, {
            "risk": risk.detach(),
            "penalty": penalty.detach(),
        }

    def bottleneck(self, features: Tensor, batch: DomainBatch) -> Tensor:
        """The penalty without its weight; 0 with one domain, or where no sample has such neighbours."""
        if batch.domain_count == 1:
            return features.new_zeros(())
        if self.hparams.normalize:
            features = F.normalize(features, dim=1)
        oneself = torch.eye(len(features), dtype=torch.bool, device=features.device)
        same_class = batch.targets.unsqueeze(1) == batch.targets
        same_domain = batch.domains.unsqueeze(1) == batch.domains
        neighbours = self.neighbours(same_class) & ~oneself
        chosen = neighbours & (~same_domain if self.hparams.flipped else same_domain)
        similarities = features @ features.T / self.hparams.temperature
        if self.hparams.variant == "domainbed" and not self.hparams.flipped:
            chosen = self._with_oneself(chosen, oneself)
            similarities = similarities.masked_fill(oneself, 0.0)
        counted = chosen.any(1) & self.anchors(same_class & ~oneself)
        shares = _log_sum(similarities, chosen) - _log_sum(similarities, neighbours)
        mean = torch.where(counted, shares, 0.0).sum() / counted.sum().clamp(min=1)
        return (-mean if self.hparams.flipped else mean) * (self.hparams.temperature / BASE_TEMPERATURE)

    def _with_oneself(self, chosen: Tensor, oneself: Tensor) -> Tensor:
        """Neighbours of one's own domain, as DomainBed chooses them."""
        return chosen


def _log_sum(values: Tensor, mask: Tensor) -> Tensor:
    """``log Σ_j exp(values_ij)`` over the masked ones; over all in a row without any, so as to be finite."""
    kept = mask | ~mask.any(1, keepdim=True)
    return values.masked_fill(~kept, float("-inf")).logsumexp(1)
