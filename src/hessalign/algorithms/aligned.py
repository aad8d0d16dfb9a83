"""Algorithms that align head gradients and Hessians, in the convention of the published DomainBed code."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, cross_entropies, head_derivatives
from hessalign.algorithms.hparams import HParams
from hessalign.alignment import HessianAlignment
from hessalign.head import HeadDerivatives

WEIGHTS = {"hessian": "alpha", "gradient": "beta"}
"""Which hyper-parameter weighs which part of the penalty."""


class AlignedHead(Algorithm):
    """``mean_e R_e + (1/E) Σ_e [α · Hessian distance of e + β ‖G_e − sg(Ḡ)‖²]``, active from the first step.

    With one source domain the distances are 0. Gradients flow to head and backbone, not through the centres.

    Reported beside the loss: ``gradient`` and ``hessian``, the two parts of the penalty without weights,
    as means over the source domains, and ``gradient_0``, ``hessian_0`` ... of each of them.
    """

    @classmethod
    def batched_hparams(cls, hparams: HParams) -> tuple[str, ...] | None:
        """See the base class."""
        return ("alpha", "beta")

    @abstractmethod
    def alignment(self) -> HessianAlignment:
        """The penalty with its weights."""

    def build(self) -> None:
        """Make the penalty."""
        self.penalty = self.alignment()

    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        """See the class."""
        features = self.backbone(batch.inputs)
        logits = self.head(features)
        risk = cross_entropies(logits, batch).mean()
        # Mixed precision would round the differences of Hessians away.
        with torch.autocast(features.device.type, enabled=False):
            penalty, parts = self.head_penalty(head_derivatives(features, logits, batch))
        return risk + penalty, {"risk": risk.detach(), "penalty": penalty.detach(), **_by_name(parts)}

    def head_penalty(self, domains: Sequence[HeadDerivatives]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """What is added to the risk, and its parts of each domain without weights, detached."""
        distances = self.penalty.distances(domains)
        penalty = domains[0].features.new_zeros(())
        for name, distance in distances.items():
            penalty = penalty + getattr(self.hparams, WEIGHTS[name]) * distance.mean()
        return penalty, {name: distance.detach() for name, distance in distances.items()}


def _by_name(parts: Mapping[str, Tensor]) -> Metrics:
    """Mean over domains, and value of each domain, of every part."""
    metrics = {}
    for name, distances in parts.items():
        metrics[name] = distances.mean()
        for domain, distance in enumerate(distances.unbind()):
            metrics[f"{name}_{domain}"] = distance
    return metrics
